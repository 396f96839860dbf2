// Several adapters resident in one model: each sequence of a ragged batch gets the adapter it names, with the bits it
// has alone. PEFT's module selection. Closed form of DoRA (specification sheet values).
#include <gtest/gtest.h>

#include "adapters/adapter.h"
#include "adapters/lora_module.h"
#include "base/file.h"
#include "base/testing.h"
#include "models/checkpoint.h"

namespace pmetal::adapters {
namespace {

namespace ts = testing_support;

struct Llama {
  Context ctx{std::make_shared<ThreadPool>(2)};
  std::unique_ptr<models::Checkpoint> checkpoint =
      models::Checkpoint::open((ts::data_dir() / "models" / "llama").string());
  std::unique_ptr<models::Model> model = models::build(checkpoint->config(), checkpoint->source());
  explicit Llama(DType dtype) { models::load_weights(ctx, *model, *checkpoint, {.dtype = dtype}); }
  std::vector<float> logits(std::span<const nn::SequenceInput> sequences) {
    const nn::Batch batch = nn::make_batch(ctx, sequences);
    const Tensor z = models::logits(ctx, *model, models::forward(ctx, *model, batch), &batch);
    return {z.data<float>(), z.data<float>() + z.numel()};
  }
};

TEST(Adapters, Sequences_of_one_batch_use_the_adapters_they_name) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Llama m(dtype);
    const char* names[] = {"llama-lora", "llama-dora", "llama-lora-layers"};  // the last replaces the head as well
    for (int i = 0; i < 3; ++i) Adapter::load(m.ctx, *m.model, ts::data_dir() / "lora" / names[i])->attach(*m.model, i);
    const std::vector<int32_t> a = {5, 9, 200, 31, 7}, b = {11, 12, 13}, c = {90, 4, 4, 61, 17, 250, 3};
    const nn::SequenceInput all[] = {{.tokens = a, .adapter = 1},
                                     {.tokens = b, .adapter = -1},
                                     {.tokens = c, .adapter = 0},
                                     {.tokens = a, .adapter = 0},
                                     {.tokens = b, .adapter = 2}};
    std::vector<float> expected;
    for (const nn::SequenceInput& s : all) {
      const std::vector<float> alone = m.logits(std::span(&s, 1));
      expected.insert(expected.end(), alone.begin(), alone.end());
    }
    EXPECT_EQ(m.logits(all), expected) << name_of(dtype);
    // they do differ
    const nn::SequenceInput base[] = {{.tokens = a, .adapter = -1}}, lora[] = {{.tokens = a, .adapter = 0}};
    EXPECT_NE(m.logits(base), m.logits(lora));
  }
}

TEST(Adapters, Modules_are_selected_as_in_PEFT) {
  PeftConfig c;
  c.targets.names = {"q_proj", "mlp.up_proj"};
  EXPECT_TRUE(c.selects("model.layers.3.self_attn.q_proj", false));
  EXPECT_TRUE(c.selects("model.layers.3.mlp.up_proj", false));
  EXPECT_FALSE(c.selects("model.layers.3.self_attn.xq_proj", false));
  c.excludes.names = {"layers.0.self_attn.q_proj"};
  EXPECT_FALSE(c.selects("model.layers.0.self_attn.q_proj", false));
  c.layers_to_transform = {1, 3};
  EXPECT_TRUE(c.selects("model.layers.3.self_attn.q_proj", false));
  EXPECT_FALSE(c.selects("model.layers.2.self_attn.q_proj", false));
  PeftConfig regex;
  regex.targets.regex = R"(.*\.(q|v)_proj)";
  EXPECT_TRUE(regex.selects("model.layers.0.self_attn.v_proj", false));
  EXPECT_FALSE(regex.selects("model.layers.0.self_attn.v_proj2", false));
  PeftConfig all;
  all.targets.all_linear = true;
  EXPECT_TRUE(all.selects("model.layers.0.mlp.gate_proj", false));
  EXPECT_FALSE(all.selects("lm_head", true));
  PeftConfig ranks;
  ranks.r = 8;
  ranks.alpha = 16;
  ranks.rank_pattern = {{"v_proj", 2}, {R"(layers\.1\..*)", 4}};
  ranks.alpha_pattern = {{"v_proj", 6}};
  EXPECT_EQ(ranks.rank_of("model.layers.1.self_attn.q_proj"), 4);
  EXPECT_EQ(ranks.rank_of("model.layers.0.self_attn.v_proj"), 2);
  EXPECT_EQ(ranks.scale_of("model.layers.0.self_attn.v_proj"), 3.0);
  EXPECT_EQ(ranks.scale_of("model.layers.0.self_attn.q_proj"), 2.0);
  ranks.use_rslora = true;
  EXPECT_DOUBLE_EQ(ranks.scale_of("model.layers.1.self_attn.q_proj"), 8.0);
}

// W = [[1,2],[3,4],[0,1]], A = [[.1,.2]], B = [1,-1,.5], s = 2, x = (1,-2): y = -3.0, -4.8238191, -1.9100460
TEST(Adapters, Dora_has_the_closed_form_values) {
  Context ctx(std::make_shared<ThreadPool>(1));
  const auto tensor = [&](std::vector<float> v, Shape s) { return host_tensor<float>(v, s, DType::kF32); };
  nn::Linear linear("l", 2, 3);
  const quant::Format& f32 = quant::format("f32");
  linear.weight = quant::allocate(f32, 3, 2);
  const float w[] = {1, 2, 3, 4, 0, 1};
  f32.encode_rows(linear.weight, 0, 3, w);
  const auto module = std::make_shared<LoraModule>();
  module->a = tensor({.1f, .2f}, {1, 2});
  module->b = tensor({1, -1, .5f}, {3, 1});
  module->scale = 2;
  module->magnitude = tensor({std::sqrt(5.f), 5, 1}, {3});
  linear.adapters = {module};
  nn::Batch batch;
  batch.cu_q = {0, 1};
  const Tensor y = linear.forward(ctx, batch, tensor({1, -2}, {1, 2}));
  const float expected[] = {-3.0f, -4.8238191f, -1.9100460f};
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(y.data<float>()[i], expected[i], 2e-6);
  module->magnitude = {};
  const Tensor plain = linear.forward(ctx, batch, tensor({1, -2}, {1, 2}));
  const float lora[] = {-3.6f, -4.4f, -2.3f};
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(plain.data<float>()[i], lora[i], 2e-6);
}

}  // namespace
}  // namespace pmetal::adapters
