#include "jobs/recipes.h"

#include <chrono>

#include <nlohmann/json.hpp>

#include "ops/elementwise.h"
#include "ops/linear.h"

namespace pmetal::jobs {
namespace {

// speeds of two cores: AVX2 120 to 200 GFLOP/s, AVX-512 with BF16 350 to 450, AMX 1500 and more
constexpr RecipeSpec kRecipes[] = {
    {.name = "small",
     .hidden = 128,
     .layers = 4,
     .heads = 4,
     .kv_heads = 2,
     .intermediate = 384,
     .vocabulary = 1024,
     .pretrain_steps = 1200,
     .pretrain_lr = 3e-3,
     .tuning_lr = 6e-3},
    {.name = "medium",
     .from_gflops = 280,
     .hidden = 192,
     .layers = 5,
     .heads = 6,
     .kv_heads = 2,
     .intermediate = 512,
     .vocabulary = 1536,
     .pretrain_steps = 1000,
     .pretrain_lr = 2.5e-3,
     .tuning_lr = 5e-3},
    {.name = "large",
     .from_gflops = 900,
     .hidden = 256,
     .layers = 6,
     .heads = 8,
     .kv_heads = 4,
     .intermediate = 768,
     .vocabulary = 2048,
     .pretrain_steps = 700,
     .pretrain_lr = 2e-3,
     .tuning_lr = 4e-3},
};

}  // namespace

const RecipeSpec& recipe_of(Recipe recipe) {
  switch (recipe) {
    case Recipe::kMedium: return kRecipes[1];
    case Recipe::kLarge: return kRecipes[2];
    default: return kRecipes[0];
  }
}

const RecipeSpec& recipe_for_speed(double gflops) {
  const RecipeSpec* best = &kRecipes[0];
  for (const RecipeSpec& r : kRecipes)
    if (gflops >= r.from_gflops) best = &r;
  return *best;
}

double measure_gflops(Context& ctx, double seconds) {
  constexpr int64_t kRows = 512, kSize = 512;
  const quant::Format& dense = quant::format("bf16");
  quant::Weight plain = quant::allocate(dense, kSize, kSize);
  const std::vector<float> values(static_cast<size_t>(kSize * kSize), 0.01f);
  dense.encode_rows(plain, 0, kSize, values.data());
  const quant::Format& best = ops::preferred_format(ctx.device(), dense);
  const quant::Weight w = &best == &dense ? plain : quant::repack(plain, best, ctx.threads());
  const Tensor x = ctx.empty({kRows, kSize}, DType::kBF16);
  ops::fill(ctx, x, 0.5);
  using Clock = std::chrono::steady_clock;
  ops::linear(ctx, x, w);
  // the fastest single product of some milliseconds at most: other programs on the machine do not count
  double fastest = 1e9;
  for (const auto end = Clock::now() + std::chrono::duration<double>(seconds); Clock::now() < end;) {
    const auto start = Clock::now();
    ops::linear(ctx, x, w);
    fastest = std::min(fastest, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return 2.0 * kRows * kSize * kSize / fastest / 1e9;
}

std::string model_config(const RecipeSpec& r) {
  nlohmann::ordered_json j;
  j["architectures"] = {"Qwen3ForCausalLM"};
  j["attention_bias"] = false;
  j["bos_token_id"] = nullptr;
  j["eos_token_id"] = 2;
  j["pad_token_id"] = 0;
  j["head_dim"] = r.head_dim;
  j["hidden_act"] = "silu";
  j["hidden_size"] = r.hidden;
  j["initializer_range"] = 0.02;
  j["intermediate_size"] = r.intermediate;
  j["max_position_embeddings"] = 512;
  j["model_type"] = "qwen3";
  j["num_attention_heads"] = r.heads;
  j["num_hidden_layers"] = r.layers;
  j["num_key_value_heads"] = r.kv_heads;
  j["rms_norm_eps"] = 1e-6;
  j["rope_theta"] = 10000.0;
  j["tie_word_embeddings"] = true;
  j["dtype"] = "bfloat16";
  j["vocab_size"] = r.vocabulary;
  return j.dump(2);
}

}  // namespace pmetal::jobs
