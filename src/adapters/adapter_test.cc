// Several adapters resident in one model: each sequence of a ragged batch gets the adapter it names, with the bits it
// has alone. PEFT's module selection. Closed form of DoRA (specification sheet values).
#include <map>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "adapters/adapter.h"
#include "adapters/lora_module.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/testing.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "models/checkpoint.h"

namespace pmetal::adapters {
namespace {

namespace ts = testing_support;

struct Llama {
  Context ctx{std::make_shared<ThreadPool>(2)};
  std::unique_ptr<models::Checkpoint> checkpoint;
  std::unique_ptr<models::Model> model;
  explicit Llama(DType dtype, const char* name = "llama")
      : checkpoint(models::Checkpoint::open((ts::data_dir() / "models" / name).string())),
        model(models::build(checkpoint->config(), checkpoint->source())) {
    models::load_weights(ctx, *model, *checkpoint, {.dtype = dtype});
  }
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

// every number of the adapter drawn anew: B is zero in a new one, and would hide what is wrong
void randomise(Context& ctx, Adapter& adapter) {
  PhiloxStream rng(1, RngPurpose::kInit, 0);
  for (const AdapterParameter& p : adapter.parameters()) {
    std::vector<float> v(static_cast<size_t>(p.value->numel()));
    for (float& x : v) x = 0.3f * static_cast<float>(rng.normal()) + (p.value->rank() == 1 ? 1.f : 0.f);
    *p.value = ops::cast(ctx, host_tensor<float>(v, p.value->shape(), DType::kF32), p.value->dtype());
  }
  adapter.refresh();
}

void expect_near(const std::vector<float>& got, const std::vector<float>& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  float largest = 0, worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    largest = std::max(largest, std::abs(want[i]));
    worst = std::max(worst, std::abs(got[i] - want[i]));
  }
  EXPECT_LT(worst, 1e-4f * largest) << what;
}

TEST(Adapters, Token_table_and_head_act_as_their_merged_weights_do) {
  const std::vector<int32_t> tokens = {5, 9, 200, 31, 7, 7, 0};
  const nn::SequenceInput one[] = {{.tokens = tokens}};
  for (const bool dora : {false, true})
    for (const bool whole : {false, true}) {
      PeftConfig config;
      config.r = 3;
      config.alpha = 5;
      config.use_dora = dora;
      config.targets.names = {"embed_tokens", "lm_head", "q_proj"};
      if (whole) config.modules_to_save = {"embed_tokens"};
      Llama beside(DType::kF32), merged(DType::kF32);
      const auto adapter = Adapter::create(beside.ctx, *beside.model, config, 7);
      const std::string what = fmt::format("dora {} whole {}", dora, whole);
      const std::vector<float> base = beside.logits(one);
      adapter->attach(*beside.model, 0);
      expect_near(beside.logits(one), base, what + ", new");
      randomise(beside.ctx, *adapter);
      merge(merged.ctx, *merged.model, *adapter);
      const std::vector<float> changed = beside.logits(one);
      EXPECT_NE(changed, base);
      expect_near(changed, merged.logits(one), what);
    }
}

TEST(Adapters, What_is_saved_of_a_token_table_has_PEFTs_names_and_shapes) {
  const std::vector<int32_t> tokens = {5, 9, 200, 31};
  const nn::SequenceInput one[] = {{.tokens = tokens}};
  PeftConfig config;
  config.r = 3;
  config.use_dora = true;
  config.targets.names = {"embed_tokens"};
  config.modules_to_save = {"lm_head"};
  Llama m(DType::kF32), again(DType::kF32);
  const auto adapter = Adapter::create(m.ctx, *m.model, config, 7);
  randomise(m.ctx, *adapter);
  adapter->attach(*m.model, 0);
  const fs::path folder = ts::scratch_dir("table");
  adapter->save(folder);
  const models::ModelInfo& info = m.model->info();
  const auto file = formats::SafetensorsFile::open(folder / "adapter_model.safetensors");
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const formats::TensorView& t : file.tensors()) shapes[t.name] = {t.shape.begin(), t.shape.end()};
  const std::map<std::string, std::vector<int64_t>> expected = {
      {"base_model.model.lm_head.weight", {info.vocabulary, info.hidden}},
      {"base_model.model.model.embed_tokens.lora_embedding_A", {3, info.vocabulary}},
      {"base_model.model.model.embed_tokens.lora_embedding_B", {info.hidden, 3}},
      {"base_model.model.model.embed_tokens.lora_magnitude_vector", {info.hidden}},
  };
  EXPECT_EQ(shapes, expected);
  Adapter::load(again.ctx, *again.model, folder)->attach(*again.model, 0);
  EXPECT_EQ(again.logits(one), m.logits(one));
  fs::remove_all(folder);
}

// A tied head stays the table's old matrix in PEFT unless ensure_weight_tying is set.
TEST(Adapters, A_tied_head_follows_the_token_table_only_when_asked) {
  const std::vector<int32_t> tokens = {5, 9, 100, 31};
  const nn::SequenceInput one[] = {{.tokens = tokens}};
  PeftConfig config;
  config.r = 3;
  config.targets.names = {"embed_tokens"};
  Llama m(DType::kF32, "qwen3"), merged(DType::kF32, "qwen3");
  ASSERT_TRUE(m.model->info().tied_head);
  const auto loose = Adapter::create(m.ctx, *m.model, config, 7);
  randomise(m.ctx, *loose);
  EXPECT_FALSE(loose->keeps_head_tied(*m.model));
  EXPECT_THROW(merge(merged.ctx, *merged.model, *loose), Error);
  const fs::path folder = ts::scratch_dir("tied");
  loose->save(folder);
  auto json = formats::read_json(folder / "adapter_config.json");
  json["ensure_weight_tying"] = true;
  write_file_atomic(folder / "adapter_config.json", json.dump());
  const auto tied = Adapter::load(m.ctx, *m.model, folder);
  EXPECT_TRUE(tied->keeps_head_tied(*m.model));
  loose->attach(*m.model, 0);
  const std::vector<float> without = m.logits(one);
  tied->attach(*m.model, 0);
  const std::vector<float> with = m.logits(one);
  EXPECT_NE(with, without);
  merge(merged.ctx, *merged.model, *tied);
  expect_near(with, merged.logits(one), "tied");
  // two sequences of one batch, each its own way
  loose->attach(*m.model, 1);
  const nn::SequenceInput both[] = {{.tokens = tokens, .adapter = 1}, {.tokens = tokens, .adapter = 0}};
  std::vector<float> expected = without;
  expected.insert(expected.end(), with.begin(), with.end());
  EXPECT_EQ(m.logits(both), expected);
  fs::remove_all(folder);
}

TEST(Adapters, What_would_be_wrong_is_refused) {
  Llama m(DType::kF32);
  PeftConfig config;
  config.targets.names = {"q_proj"};
  const auto refuses = [&](const PeftConfig& c, const std::string& text) {
    try {
      Adapter::create(m.ctx, *m.model, c, 1);
      ADD_FAILURE() << "accepted: " << text;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
    }
  };
  PeftConfig c = config;
  c.modules_to_save = {"input_layernorm"};
  refuses(c, "a norm");
  c.modules_to_save = {"lm_heads"};
  refuses(c, "no module is called \"lm_heads\"");
  const fs::path folder = ts::scratch_dir("refused");
  Adapter::create(m.ctx, *m.model, config, 1)->save(folder);
  const auto good = formats::read_json(folder / "adapter_config.json");
  const auto with = [&](const char* key, const nlohmann::ordered_json& value) {
    auto json = good;
    json[key] = value;
    write_file_atomic(folder / "adapter_config.json", json.dump());
    EXPECT_THROW(Adapter::load(m.ctx, *m.model, folder), Error) << key << " " << value.dump();
  };
  with("init_lora_weights", "pissa_niter_16");
  with("use_next_thing", true);
  with("target_parameters", {"mlp.experts"});
  with("use_dora", true);  // no magnitudes in the file
  auto json = good;
  json["init_lora_weights"] = "orthogonal";
  json["fan_in_fan_out"] = true;
  write_file_atomic(folder / "adapter_config.json", json.dump());
  EXPECT_NO_THROW(Adapter::load(m.ctx, *m.model, folder));
  fs::remove_all(folder);
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
  c.targets.names.push_back("model.layers.2.self_attn.q_proj");  // a whole name is not asked for its layer
  EXPECT_TRUE(c.selects("model.layers.2.self_attn.q_proj", false));
  PeftConfig parent;
  parent.modules_to_save = {"mlp"};
  EXPECT_TRUE(parent.saves_whole("model.layers.0.mlp.up_proj"));
  EXPECT_FALSE(parent.saves_whole("model.layers.0.self_attn.q_proj"));
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
