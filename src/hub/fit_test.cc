// Expected values: the formulas of the header worked out by hand.
#include "hub/fit.h"

#include <gtest/gtest.h>

#include "hub/search.h"

namespace pmetal::hub {
namespace {

const ModelSize kLlama8b{.params_b = 8, .layers = 32, .kv_heads = 8, .head_dim = 128};

TEST(Fit, weights_and_cache) {
  EXPECT_DOUBLE_EQ(weights_gb(kLlama8b), 16.0);
  EXPECT_DOUBLE_EQ(weights_gb({.params_b = 8, .precision = Precision::kF32}), 32.0);
  EXPECT_DOUBLE_EQ(weights_gb({.params_b = 10, .precision = Precision::k4Bit}), 5.8);
  EXPECT_DOUBLE_EQ(weights_gb({.params_b = 10, .precision = Precision::kQ6}), 8.0);
  EXPECT_DOUBLE_EQ(kv_gb(kLlama8b, 8192), 1.073741824);                       // 2·32·8·128·8192·2
  EXPECT_NEAR(kv_gb(kLlama8b, 8192, KvPrecision::kQ8), 0.5905580032, 1e-12);  // · 1.1 / 2
  EXPECT_DOUBLE_EQ(kv_gb({.params_b = 7}, 1000), 0.056);                      // shape unknown
  EXPECT_DOUBLE_EQ(inference_gb(kLlama8b, 8192), 17.573741824);
}

TEST(Fit, borders_at_80_and_100_percent) {
  EXPECT_EQ(fit_of(8.0, 10), Fit::kFits);
  EXPECT_EQ(fit_of(8.1, 10), Fit::kTight);
  EXPECT_EQ(fit_of(10.0, 10), Fit::kTight);
  EXPECT_EQ(fit_of(10.1, 10), Fit::kTooLarge);
}

TEST(Fit, speed) {
  EXPECT_DOUBLE_EQ(tokens_per_second(kLlama8b, 8192, 1600), 60.0);              // 1600 / 16 · 0.60
  EXPECT_DOUBLE_EQ(tokens_per_second(kLlama8b, 32768, 1600), 50.0);             // two doublings: 0.50
  EXPECT_DOUBLE_EQ(tokens_per_second(kLlama8b, int64_t{1} << 30, 1600), 30.0);  // the floor
  const ModelSize mixture{.params_b = 30, .active_b = 3};
  EXPECT_NEAR(tokens_per_second(mixture, 4096, 1000), 1000 / (60 * 0.46) * 0.5, 1e-9);
}

TEST(Fit, training) {
  const ModelSize size{.params_b = 1.2, .layers = 25};  // hidden = sqrt(1.2e9 / 300) = 2000
  const TrainingEstimate e = training_estimate(size, 1000, 10);
  EXPECT_DOUBLE_EQ(e.activations_gb, 0.2);  // 2000 · 1000 · 25 · 4
  EXPECT_NEAR(e.needed_gb, 2.4 + 0.0096 + 0.2 + 0.2 + 0.5, 1e-12);
  EXPECT_EQ(e.batch_size, 32);  // 6.69 / 0.2 + 1 is more
  EXPECT_FALSE(e.wants_quantized);
  EXPECT_EQ(training_estimate(size, 1000, 4).batch_size, 4);        // floor(0.6904 / 0.2) + 1
  EXPECT_TRUE(training_estimate(size, 1000, 3.8).wants_quantized);  // 3.3096 > 3.23
  EXPECT_EQ(training_estimate(size, 1000, 2).batch_size, 1);
  EXPECT_DOUBLE_EQ(training_estimate({.params_b = 1}, 1000, 8).activations_gb, 1.0);
}

TEST(Fit, size_from_names) {
  EXPECT_DOUBLE_EQ(size_from_name("Qwen/Qwen3-0.6B")->params_b, 0.6);
  EXPECT_DOUBLE_EQ(size_from_name("HuggingFaceTB/SmolLM2-135M-Instruct")->params_b, 0.135);
  EXPECT_DOUBLE_EQ(size_from_name("mistralai/Mixtral-8x7B-v0.1")->params_b, 56);
  const auto mixture = size_from_name("Qwen/Qwen3-30B-A3B-Instruct-AWQ");
  EXPECT_DOUBLE_EQ(mixture->params_b, 30);
  EXPECT_DOUBLE_EQ(mixture->active_b, 3);
  EXPECT_EQ(mixture->precision, Precision::k4Bit);
  EXPECT_EQ(size_from_name("org/model-8B-FP8")->precision, Precision::k8Bit);
  EXPECT_FALSE(size_from_name("org/bert-base-uncased").has_value());
  EXPECT_FALSE(size_from_name("7B/model").has_value());
}

}  // namespace
}  // namespace pmetal::hub
