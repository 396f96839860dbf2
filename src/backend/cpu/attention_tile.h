// Shared by the plain attention kernels, forward and backward: tiles of query rows against blocks of 64 keys that lie
// converted in scratch.
#pragma once

#include "backend/cpu/attention.h"
#include "backend/cpu/plain.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {

inline constexpr int64_t kTileRows = 16;  // query rows that share a converted block

// the part of a range that lies in the block of keys from `base` on, relative to it
inline KeyRange within(KeyRange range, int64_t base) {
  return {std::max(range.begin, base) - base, std::min(range.end, base + ops::kAttentionBlock) - base};
}

// from the first to the last key that any of the rows sees
inline KeyRange seen_by_rows(const ops::AttentionMask& mask, const AttentionSequence& sequence, int64_t first,
                             int64_t n) {
  KeyRange all{sequence.keys, 0};
  for (int64_t r = first; r < first + n; ++r) {
    const KeyRange one = visible(mask, sequence.query_of(r), sequence.keys);
    if (one.begin >= one.end) continue;
    all.begin = std::min(all.begin, one.begin);
    all.end = std::max(all.end, one.end);
  }
  return all;
}

// rows [64, d] of a key block; missing rows are zero
template <class A>
void load_block(const View& v, KeyBlock at, int64_t n, int64_t d, A* to) {
  for (int64_t j = 0; j < n; ++j) load(v, at.offset + j * at.stride, v.stride(-1), d, to + j * d);
  std::fill(to + n * d, to + ops::kAttentionBlock * d, A{0});
}

// the same as [d, 64]
template <class A>
void load_transposed(const View& v, KeyBlock at, int64_t n, int64_t d, A* to) {
  constexpr int64_t kPart = 64;
  A line[kPart];
  if (n < ops::kAttentionBlock) std::fill(to, to + ops::kAttentionBlock * d, A{0});
  for (int64_t c = 0; c < d; c += kPart) {
    const int64_t width = std::min(kPart, d - c);
    for (int64_t j = 0; j < n; ++j) {
      load(v, at.offset + j * at.stride + c * v.stride(-1), v.stride(-1), width, line);
      for (int64_t i = 0; i < width; ++i) to[(c + i) * ops::kAttentionBlock + j] = line[i];
    }
  }
}

// out[64] = x[d] · block[d, 64], summed in order of d
template <class A>
inline void products(const A* x, const A* block, int64_t d, A* out) {
  constexpr int64_t kStep = Lanes<A>::kCount, kPart = 8 * kStep;
  for (int64_t c = 0; c < ops::kAttentionBlock; c += kPart) {
    Lanes<A> sums[8];
    for (int64_t i = 0; i < d; ++i) {
      const Lanes<A> factor = Lanes<A>::all(x[i]);
      for (int64_t j = 0; j < 8; ++j)
        sums[j].add_product(factor, Lanes<A>::load(block + i * ops::kAttentionBlock + c + j * kStep));
    }
    for (int64_t j = 0; j < 8; ++j) sums[j].store(out + c + j * kStep);
  }
}

// to[d] += Σ_j weights[j] · rows[j, d] over the range, in order of j
template <class A>
inline void add_rows(const A* weights, KeyRange range, const A* rows, int64_t d, A* to) {
  constexpr int64_t kStep = Lanes<A>::kCount, kPart = 8 * kStep;
  int64_t c = 0;
  for (; c + kPart <= d; c += kPart) {
    Lanes<A> sums[8];
    for (int64_t i = 0; i < 8; ++i) sums[i] = Lanes<A>::load(to + c + i * kStep);
    for (int64_t j = range.begin; j < range.end; ++j) {
      const Lanes<A> factor = Lanes<A>::all(weights[j]);
      for (int64_t i = 0; i < 8; ++i) sums[i].add_product(factor, Lanes<A>::load(rows + j * d + c + i * kStep));
    }
    for (int64_t i = 0; i < 8; ++i) sums[i].store(to + c + i * kStep);
  }
  if (c < d)
    for (int64_t j = range.begin; j < range.end; ++j) axpy(weights[j], rows + j * d + c, to + c, d - c);
}

// body(sequence, first row, rows, kv head, worker) over tiles of at most kTileRows rows of one sequence
template <class Body>
void for_tiles(const ops::AttentionArgs& args, const KernelContext& kernel, Body&& body) {
  const int64_t rows = args.q.dim(0), kv_heads = args.k.dim(1);
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  // the last tiles of a causal sequence are the longest: they go first
  for_items(kernel, tiles * kv_heads, [&](int64_t item, int worker) {
    const int64_t tile = tiles - 1 - item / kv_heads, last = std::min(rows, (tile + 1) * kTileRows);
    for (int64_t row = tile * kTileRows; row < last;) {
      const AttentionSequence sequence = sequence_of_row(args, row);
      const int64_t n = std::min(last, sequence.first_row + sequence.rows) - row;
      body(sequence, row, n, item % kv_heads, worker);
      row += n;
    }
  });
}

}  // namespace pmetal::cpu

#pragma GCC pop_options
