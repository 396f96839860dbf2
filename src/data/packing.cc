#include "data/packing.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "base/error.h"

namespace pmetal::data {

std::vector<std::vector<int64_t>> pack_best_fit(std::span<const int64_t> lengths, int64_t capacity) {
  PMETAL_ASSERT(capacity > 0, "capacity {}", capacity);
  std::vector<int64_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return std::min(lengths[static_cast<size_t>(a)], capacity) > std::min(lengths[static_cast<size_t>(b)], capacity);
  });
  std::vector<std::vector<int64_t>> bins;
  std::set<std::pair<int64_t, int64_t>> rooms;  // (room left, bin), rooms above 0 only
  for (int64_t document : order) {
    const int64_t length = std::min(lengths[static_cast<size_t>(document)], capacity);
    int64_t room = capacity, bin = static_cast<int64_t>(bins.size());
    if (const auto fit = rooms.lower_bound({length, 0}); fit != rooms.end()) {
      std::tie(room, bin) = *fit;
      rooms.erase(fit);
    } else {
      bins.emplace_back();
    }
    bins[static_cast<size_t>(bin)].push_back(document);
    if (room > length) rooms.emplace(room - length, bin);
  }
  return bins;
}

double fill_ratio(std::span<const int64_t> lengths, const std::vector<std::vector<int64_t>>& bins, int64_t capacity) {
  if (bins.empty()) return 0;
  int64_t used = 0;
  for (int64_t l : lengths) used += std::min(l, capacity);
  return static_cast<double>(used) / (static_cast<double>(bins.size()) * static_cast<double>(capacity));
}

std::vector<Example> cut_to_capacity(Example example, int64_t capacity, LongDocuments policy) {
  std::vector<Example> pieces;
  if (example.length() <= capacity) {
    pieces.push_back(std::move(example));
    return pieces;
  }
  const int64_t end = policy == LongDocuments::kTruncate ? capacity : example.length();
  for (int64_t begin = 0; begin < end; begin += capacity) {
    const int64_t stop = std::min(begin + capacity, end);
    Example piece;
    piece.ids.assign(example.ids.begin() + begin, example.ids.begin() + stop);
    piece.labels.assign(example.labels.begin() + begin, example.labels.begin() + stop);
    if (piece.n_learned() > 0) pieces.push_back(std::move(piece));
  }
  return pieces;
}

void PackedSequence::append(const Example& example) {
  const auto n = static_cast<int32_t>(example.length());
  if (n == 0) return;
  PMETAL_ASSERT(example.labels.size() == example.ids.size());
  PMETAL_ASSERT(length() + n <= std::numeric_limits<int32_t>::max(), "{} + {} tokens", length(), n);
  ids.insert(ids.end(), example.ids.begin(), example.ids.end());
  labels.push_back(kIgnore);
  labels.insert(labels.end(), example.labels.begin() + 1, example.labels.end());
  for (int32_t p = 0; p < n; ++p) positions.push_back(p);
  cu_seqlens.push_back(cu_seqlens.back() + n);
  max_seqlen = std::max(max_seqlen, n);
}

void PackedSequence::append(const PackedSequence& other) {
  const int32_t base = cu_seqlens.back();
  ids.insert(ids.end(), other.ids.begin(), other.ids.end());
  labels.insert(labels.end(), other.labels.begin(), other.labels.end());
  positions.insert(positions.end(), other.positions.begin(), other.positions.end());
  for (size_t i = 1; i < other.cu_seqlens.size(); ++i) cu_seqlens.push_back(base + other.cu_seqlens[i]);
  max_seqlen = std::max(max_seqlen, other.max_seqlen);
}

int64_t PackedSequence::n_learned() const {
  return std::count_if(labels.begin(), labels.end(), [](int32_t l) { return l != kIgnore; });
}

int64_t percentile(std::vector<int64_t> lengths, double q) {
  if (lengths.empty()) return 0;
  const auto n = static_cast<double>(lengths.size());
  const auto rank = static_cast<int64_t>(std::clamp(std::ceil(q * n - 1e-9), 1.0, n));
  std::nth_element(lengths.begin(), lengths.begin() + (rank - 1), lengths.end());
  return lengths[static_cast<size_t>(rank - 1)];
}

int64_t packing_length(const std::vector<int64_t>& lengths, int64_t limit) {
  const auto p99 = static_cast<uint64_t>(std::max<int64_t>(percentile(lengths, 0.99), 1));
  const auto rounded = static_cast<int64_t>(std::bit_ceil(p99));
  return limit > 0 ? std::min(rounded, limit) : rounded;
}

int64_t suggested_max_length(const std::vector<int64_t>& lengths) { return (percentile(lengths, 0.95) + 63) / 64 * 64; }

}  // namespace pmetal::data
