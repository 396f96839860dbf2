// Learning rates of an adapter's tensors: LoRA+ as PEFT's create_loraplus_optimizer groups them.
#include "train/targets.h"

#include <gtest/gtest.h>

#include <map>

#include "base/testing.h"

namespace pmetal::train {
namespace {

TEST(Targets, Rates_of_lora_plus) {
  Context ctx(std::make_shared<ThreadPool>(1));
  const auto checkpoint = models::Checkpoint::open((testing_support::data_dir() / "models" / "llama").string());
  const auto model = models::build(checkpoint->config(), checkpoint->source());
  models::load_weights(ctx, *model, *checkpoint, {.dtype = DType::kF32});
  adapters::PeftConfig config;
  config.r = 2;
  config.targets.names = {"q_proj", "embed_tokens"};
  config.use_dora = true;
  const std::shared_ptr<adapters::Adapter> adapter = adapters::Adapter::create(ctx, *model, config, 5);
  const auto rates_of = [&](const LearningRates& rates) {
    std::map<std::string, double> found;  // by the last parts of the key
    for (const Trainable& t : make_adapter_target(*model, adapter, rates)->trainables())
      for (const char* part :
           {"embed_tokens.lora_embedding_A", "embed_tokens.lora_embedding_B", "layers.0.self_attn.q_proj.lora_A",
            "layers.0.self_attn.q_proj.lora_B", "layers.0.self_attn.q_proj.lora_magnitude"})
        if (t.key.find(part) != t.key.npos) found[part] = t.lr_scale * rates.learning_rate;
    EXPECT_EQ(found.size(), 5u);
    return found;
  };
  const auto near = [](std::map<std::string, double> found, const std::vector<double>& want) {
    size_t i = 0;
    for (const auto& [name, rate] : found) EXPECT_NEAR(rate, want[i++], 1e-12) << name;
  };
  // in the order of their names: the table's A and B, q's A, B and magnitudes
  near(rates_of({.learning_rate = 1e-4}), {1e-4, 1e-4, 1e-4, 1e-4, 1e-4});
  near(rates_of({.learning_rate = 1e-4, .loraplus_ratio = 16}), {1e-6, 1e-6, 1e-4, 16e-4, 16e-4});
  near(rates_of({.learning_rate = 1e-4, .embedding = 3e-5, .loraplus_ratio = 16}), {3e-5, 3e-5, 1e-4, 16e-4, 16e-4});
}

}  // namespace
}  // namespace pmetal::train
