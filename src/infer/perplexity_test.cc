#include "infer/perplexity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/testing.h"
#include "infer/reference_testing.h"
#include "models/checkpoint.h"

namespace pmetal::infer {
namespace {

TEST(TextWindows, Without_stride_do_not_overlap_and_drop_the_rest) {
  const auto w = text_windows(35, 10, 0);
  ASSERT_EQ(w.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(w[i].begin, static_cast<int64_t>(i) * 10);
    EXPECT_EQ(w[i].length, 10);
    EXPECT_EQ(w[i].first_scored, 1);
  }
  EXPECT_TRUE(text_windows(9, 10, 0).empty());
}

TEST(TextWindows, With_stride_score_every_token_once_with_enough_before_it) {
  for (int64_t n : {1, 2, 9, 10, 11, 57})
    for (int64_t length : {2, 10})
      for (int64_t stride = 1; stride <= length; ++stride) {
        std::set<int64_t> scored;
        for (const TextWindow& w : text_windows(n, length, stride)) {
          EXPECT_LE(w.begin + w.length, n);
          EXPECT_LE(w.length, length);
          EXPECT_EQ(w.begin % stride, 0);
          EXPECT_GE(w.first_scored, 1);
          for (int64_t t = w.first_scored; t < w.length; ++t)
            EXPECT_TRUE(scored.insert(w.begin + t).second) << "scored twice";
        }
        // windows that do not overlap leave out the first token of each
        int64_t lost = stride == length && n > 0 ? (n - 1) / length : 0;
        EXPECT_EQ(static_cast<int64_t>(scored.size()), std::max<int64_t>(0, n - 1 - lost));
      }
}

// against the log-softmax of the logits that the reference stack computed for the first, unpadded row
TEST(Score, Is_the_likelihood_under_the_reference_logits) {
  const fs::path folder = testing_support::data_dir() / "models" / "qwen3";
  const auto expected = formats::SafetensorsFile::open(folder / "expected.safetensors");
  const auto columns = static_cast<size_t>(expected.at("input_ids").shape[1]);
  const auto vocabulary = static_cast<size_t>(expected.at("logits").shape[2]);
  const std::vector<int64_t> ids = reference::values<int64_t>(expected, "input_ids");
  const std::vector<float> logits = reference::values<float>(expected, "logits");
  const std::vector<int32_t> tokens(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(columns));
  std::vector<int32_t> labels = tokens;
  labels[3] = labels[columns - 1] = -100;
  Likelihood want;
  for (size_t t = 1; t < columns; ++t) {
    if (labels[t] < 0) continue;
    const std::span<const float> row = std::span(logits).subspan((t - 1) * vocabulary, vocabulary);
    double sum = 0;
    for (float z : row) sum += std::exp(static_cast<double>(z));
    want.nll += std::log(sum) - static_cast<double>(row[static_cast<size_t>(labels[t])]);
    want.correct += std::max_element(row.begin(), row.end()) - row.begin() == labels[t];
    ++want.tokens;
  }
  Context ctx{std::make_shared<ThreadPool>(2)};
  const auto checkpoint = models::Checkpoint::open(folder.string());
  const auto model = models::build(checkpoint->config(), checkpoint->source());
  models::load_weights(ctx, *model, *checkpoint, {.dtype = DType::kF32});
  const ScoredSequence one{tokens, labels};
  const Likelihood got = score(ctx, *model, {&one, 1});
  EXPECT_EQ(got.tokens, static_cast<int64_t>(columns) - 3);
  EXPECT_EQ(got.correct, want.correct);
  EXPECT_NEAR(got.mean(), want.mean(), 1e-5);
  // a sequence's likelihood does not depend on what is scored with it
  const std::vector<ScoredSequence> three = {one, one, one};
  EXPECT_NEAR(score(ctx, *model, three).nll, 3 * got.nll, 1e-9 * got.nll);
}

}  // namespace
}  // namespace pmetal::infer
