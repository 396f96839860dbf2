// Packing: many documents in one sequence of fixed capacity, without padding and without seeing each other.
//   best fit decreasing: lengths sorted descending (stable), each into the fullest bin with room, else a new bin.
// A packed sequence restarts positions at every document, carries cu_seqlens (prefix sums, 0 and total included), and
// ignores the label of every document's first token (nothing before it predicts it).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/example.h"

namespace pmetal::data {

// bins[b] = indices into `lengths`; lengths above the capacity count as the capacity. Among equally full bins the
// earliest made is taken. O(n log n).
std::vector<std::vector<int64_t>> pack_best_fit(std::span<const int64_t> lengths, int64_t capacity);
// used tokens / (bins * capacity)
double fill_ratio(std::span<const int64_t> lengths, const std::vector<std::vector<int64_t>>& bins, int64_t capacity);

// What happens to documents longer than the capacity.
enum class LongDocuments : uint8_t { kTruncate, kSplit };
// pieces of at most `capacity` tokens; one piece, cut, for kTruncate
std::vector<Example> cut_to_capacity(Example example, int64_t capacity, LongDocuments policy);

struct PackedSequence {
  std::vector<int32_t> ids, labels, positions;  // [tokens]
  std::vector<int32_t> cu_seqlens{0};           // [documents + 1]
  int32_t max_seqlen = 0;
  void append(const Example& example);
  void append(const PackedSequence& other);  // lays a batch end to end
  int64_t length() const { return static_cast<int64_t>(ids.size()); }
  int64_t n_documents() const { return static_cast<int64_t>(cu_seqlens.size()) - 1; }
  int64_t n_learned() const;  // labels that are not ignored: each is one term of the loss
};

// The length at the given percentile by nearest rank: the ceil(q * n)-th smallest. 0 for no lengths.
int64_t percentile(std::vector<int64_t> lengths, double q);
// Automatic packing length: p99 rounded up to a power of two, at most `limit` (0 = none): the rule of the surface
// (10.2).
int64_t packing_length(const std::vector<int64_t>& lengths, int64_t limit);
// Suggested --max-seq-len: p95 rounded up to 64.
int64_t suggested_max_length(const std::vector<int64_t>& lengths);

}  // namespace pmetal::data
