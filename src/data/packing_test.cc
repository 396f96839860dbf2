// Packing against the worked example of the training sheet and against brute force.
#include "data/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/rng.h"

namespace pmetal::data {
namespace {

using Bins = std::vector<std::vector<int64_t>>;

Bins lengths_in(const std::vector<int64_t>& lengths, Bins bins) {
  for (auto& bin : bins)
    for (auto& d : bin) d = lengths[static_cast<size_t>(d)];
  return bins;
}
Example example_of(std::vector<int32_t> ids) { return {ids, ids}; }

TEST(Packing, Best_fit_decreasing_as_in_the_worked_example) {
  const std::vector<int64_t> lengths = {5, 3, 8, 2, 7, 4, 6, 1};
  const auto bins = pack_best_fit(lengths, 10);
  EXPECT_EQ(lengths_in(lengths, bins), (Bins{{8, 2}, {7, 3}, {6, 4}, {5, 1}}));
  EXPECT_DOUBLE_EQ(fill_ratio(lengths, bins, 10), 36.0 / 40.0);
}

TEST(Packing, Equal_lengths_keep_their_order_and_long_ones_fill_a_bin) {
  const std::vector<int64_t> lengths = {4, 12, 4, 4};
  EXPECT_EQ(pack_best_fit(lengths, 8), (Bins{{1}, {0, 2}, {3}}));
}

// the definition, bin by bin
Bins slow_best_fit(const std::vector<int64_t>& lengths, int64_t capacity) {
  std::vector<int64_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return lengths[a] > lengths[b]; });
  Bins bins;
  std::vector<int64_t> room;
  for (auto d : order) {
    int64_t best = -1;
    for (size_t b = 0; b < bins.size(); ++b)
      if (room[b] >= lengths[d] && (best < 0 || room[b] < room[best])) best = static_cast<int64_t>(b);
    if (best < 0) {
      best = static_cast<int64_t>(bins.size());
      bins.emplace_back();
      room.push_back(capacity);
    }
    bins[best].push_back(d);
    room[best] -= lengths[d];
  }
  return bins;
}

TEST(Packing, Equals_the_definition_on_random_lengths) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    PhiloxStream random(seed, RngPurpose::kSynthetic);
    std::vector<int64_t> lengths(random.below(200));
    for (auto& l : lengths) l = 1 + static_cast<int64_t>(random.below(64));
    EXPECT_EQ(pack_best_fit(lengths, 64), slow_best_fit(lengths, 64));
  }
  EXPECT_TRUE(pack_best_fit({}, 8).empty());
}

TEST(Packing, Sequences_carry_borders_positions_and_ignore_first_labels) {
  PackedSequence s;
  s.append(example_of({10, 11, 12}));
  s.append(example_of({20, 21}));
  EXPECT_EQ(s.ids, (std::vector<int32_t>{10, 11, 12, 20, 21}));
  EXPECT_EQ(s.labels, (std::vector<int32_t>{kIgnore, 11, 12, kIgnore, 21}));
  EXPECT_EQ(s.positions, (std::vector<int32_t>{0, 1, 2, 0, 1}));
  EXPECT_EQ(s.cu_seqlens, (std::vector<int32_t>{0, 3, 5}));
  EXPECT_EQ(s.max_seqlen, 3);
  EXPECT_EQ(s.n_learned(), 3);
  PackedSequence batch = s;
  batch.append(s);
  EXPECT_EQ(batch.cu_seqlens, (std::vector<int32_t>{0, 3, 5, 8, 10}));
  EXPECT_EQ(batch.length(), 10);
}

TEST(Packing, Long_documents_are_cut_or_split) {
  const auto cut = cut_to_capacity(example_of({1, 2, 3, 4, 5}), 2, LongDocuments::kTruncate);
  ASSERT_EQ(cut.size(), 1u);
  EXPECT_EQ(cut[0].ids, (std::vector<int32_t>{1, 2}));
  const auto split = cut_to_capacity(example_of({1, 2, 3, 4, 5}), 2, LongDocuments::kSplit);
  ASSERT_EQ(split.size(), 2u);  // the last piece of one token predicts nothing
  EXPECT_EQ(split[1].ids, (std::vector<int32_t>{3, 4}));
}

TEST(Packing, Percentiles_and_automatic_lengths) {
  std::vector<int64_t> hundred(100);
  std::iota(hundred.begin(), hundred.end(), 1);
  EXPECT_EQ(percentile(hundred, 0.99), 99);
  EXPECT_EQ(percentile(hundred, 0.5), 50);
  EXPECT_EQ(percentile({7}, 0.99), 7);
  EXPECT_EQ(packing_length(hundred, 0), 128);
  EXPECT_EQ(packing_length(hundred, 100), 100);
  EXPECT_EQ(packing_length({64, 64}, 0), 64);
  EXPECT_EQ(suggested_max_length(hundred), 128);  // p95 = 95
  EXPECT_EQ(suggested_max_length({64}), 64);
}

}  // namespace
}  // namespace pmetal::data
