// attention forward on the matrix kernels of gemm/: online softmax over blocks of 64 keys (Dao et al. 2022).
//   for each (sequence, key/value head, tile of queries):        a task
//     for each block of 64 keys that one of the tile sees:
//       S [M, 64] = Q Kᵀ;  rows: P = e^(s − max), sums; O scaled where the maximum moved;  O [M, d_v] += P V
// M = queries × heads of the group, about 256: S, P and O stay in L2, K and V are packed once for the tile. P meets
// bf16 values as two bf16 numbers, p and what rounding took from it: rounded alone it cost a tenth of the accuracy of
// a model's logits. They lie side by side and V twice, so that it is one product of twice the depth. Each score is one
// chain over d_k, each output one chain over the keys in order, so a row has the same bits in prefill, in any chunk of
// it and in decode. Speed: see bench/cpu_step.
#include "backend/cpu/attention_gemm.h"

#include <cmath>
#include <limits>

#include "backend/cpu/attention_blocks.h"
#include "backend/cpu/plain.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::AttentionArgs;
using ops::kAttentionBlock;

constexpr int64_t kTileRows = 256;

struct Forward {
  const AttentionArgs& args;
  AttentionTypes types;
  const ScoreRows& rows_of;
  int64_t d_k = args.q.dim(2), d_v = args.out.dim(2), kv_heads = args.k.dim(1), group = args.q.dim(1) / kv_heads;
  int64_t tile = std::max<int64_t>(1, kTileRows / group);  // queries
  int64_t tiles = (most_query_rows(args) + tile - 1) / tile;
  int64_t q_width = padded(d_k, 32), o_width = padded(d_v, 16);
  int64_t parts = types.a == DType::kBF16 ? 2 : 1, p_width = parts * kAttentionBlock;  // of p

  struct Scratch {
    char *q, *p, *k, *v, *stage;
    float *s, *o, *max, *sum;
    KeyRange* seen;
    int64_t bytes;
  };
  Scratch carve(void* data) const {
    Carver c(data);
    const int64_t m = std::min(tile, most_query_rows(args)) * group;
    Scratch w;
    w.q = c.take<char>(m * q_width * types.a_size);
    w.p = c.take<char>(m * p_width * types.a_size);
    w.k = c.take<char>(types.keys_bytes(d_k));
    w.v = c.take<char>(parts * types.values_bytes(types.dtype, kAttentionBlock, d_v));
    w.stage = c.take<char>(kAttentionBlock * std::max(d_k, d_v) * types.b_size);
    w.s = c.take<float>(m * kAttentionBlock);
    w.o = c.take<float>(m * o_width);
    w.max = c.take<float>(m);
    w.sum = c.take<float>(m);
    w.seen = c.take<KeyRange>(m / group);
    w.bytes = c.used();
    return w;
  }

  void run(const KernelContext& kernel) const {
    const int64_t sequences = args.kv_len.dim(0), per_worker = carve(nullptr).bytes;
    const int64_t items = sequences * kv_heads * tiles;
    const auto one = [&](int64_t item, int worker) {
      const AttentionSequence sequence = sequence_at(args, item / tiles / kv_heads);
      const int64_t first = (tiles - 1 - item % tiles) * tile;  // the longest first
      if (first >= sequence.rows) return;
      task(sequence, item / tiles % kv_heads, sequence.first_row + first, std::min(tile, sequence.rows - first),
           carve(static_cast<char*>(kernel.workspace) + worker * per_worker));
    };
    if (args.q.dim(0) * group * kv_heads * std::max<int64_t>(args.max_kv, 1) < 4096)
      for (int64_t i = 0; i < items; ++i) one(i, 0);
    else
      for_items(kernel, items, one);
  }

  void task(const AttentionSequence& sequence, int64_t kv_head, int64_t row, int64_t n, const Scratch& w) const {
    const float none = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < n * group; ++i)
      types.put_row(args.q, (row + i / group) * args.q.stride(0) + (kv_head * group + i % group) * args.q.stride(1),
                    d_k, w.q + i * q_width * types.a_size, q_width);
    std::fill(w.o, w.o + n * group * o_width, 0.f);
    std::fill(w.max, w.max + n * group, none);
    std::fill(w.sum, w.sum + n * group, 0.f);
    int64_t begin = sequence.keys, end = 0;
    for (int64_t i = 0; i < n; ++i) {
      w.seen[i] = visible(args.mask, sequence.query_of(row + i), sequence.keys);
      if (w.seen[i].begin >= w.seen[i].end) continue;
      begin = std::min(begin, w.seen[i].begin);
      end = std::max(end, w.seen[i].end);
    }
    for (int64_t b = begin / kAttentionBlock; b * kAttentionBlock < end; ++b) block(sequence, kv_head, b, n, w);
    finish(kv_head, row, n, w);
  }

  void block(const AttentionSequence& sequence, int64_t kv_head, int64_t b, int64_t n, const Scratch& w) const {
    const int64_t base = b * kAttentionBlock, keys = std::min(kAttentionBlock, sequence.keys - base);
    int64_t lo = 0, hi = n;  // queries that see some of it; their ranges move forward together
    while (lo < n && w.seen[lo].end <= base) ++lo;
    while (hi > lo && w.seen[hi - 1].begin >= base + keys) --hi;
    if (lo >= hi) return;
    const int64_t m0 = lo * group, m = (hi - lo) * group;

    const BlockRows k(types, args.k, key_block(args, args.k, sequence.index, kv_head, b), keys, d_k, w.stage);
    types.pack_keys(k.data, k.stride, kAttentionBlock, d_k, w.k);
    types.multiply(types.block, m, kAttentionBlock / 16, d_k, w.q + m0 * q_width * types.a_size, q_width * types.a_size,
                   w.k, b_block_bytes(types.dtype, d_k), w.s, kAttentionBlock, true);
    bool partial = false;
    for (int64_t i = 0; i < m; ++i) {
      const KeyRange& seen = w.seen[lo + i / group];
      const int64_t first = std::max<int64_t>(seen.begin - base, 0), last = std::min(seen.end - base, keys);
      partial |= first > 0 || last < keys;
      rows_of.softmax({w.s + i * kAttentionBlock, first, last, args.scale, args.softcap, w.max + m0 + i, w.sum + m0 + i,
                       w.p + i * p_width * types.a_size, w.p + (i * p_width + kAttentionBlock) * types.a_size,
                       w.o + (m0 + i) * o_width, o_width},
                      types.a == DType::kBF16);
    }
    const BlockRows v(types, args.v, key_block(args, args.v, sequence.index, kv_head, b), keys, d_v, w.stage);
    const auto add = [&](int64_t i, int64_t rows) {
      types.multiply(types.block, rows, o_width / 16, p_width, w.p + i * p_width * types.a_size, p_width * types.a_size,
                     w.v, parts * b_block_bytes(types.dtype, kAttentionBlock), w.o + (m0 + i) * o_width, o_width,
                     false);
    };
    if (!partial || is_finite(v, keys)) {
      pack_values(v.data, v.stride, w.v);
      return add(0, m);
    }
    // 0 · NaN: what a row does not see must not reach it
    for (int64_t i = 0; i < m; ++i) {
      const KeyRange& seen = w.seen[lo + i / group];
      const KeyBlock at = key_block(args, args.v, sequence.index, kv_head, b);
      const int64_t first = std::max<int64_t>(seen.begin - base, 0), last = std::min(seen.end - base, keys);
      std::memset(w.stage, 0, static_cast<size_t>(kAttentionBlock * d_v * types.b_size));
      for (int64_t j = first; j < last; ++j)
        std::memcpy(w.stage + j * d_v * types.b_size,
                    static_cast<const char*>(args.v.data) + (at.offset + j * at.stride) * types.b_size,
                    static_cast<size_t>(d_v * types.b_size));
      pack_values(w.stage, d_v, w.v);
      add(i, 1);
    }
  }

  // the values of a block as B, `parts` times
  void pack_values(const char* rows, int64_t stride, char* to) const {
    const int64_t bytes = b_block_bytes(types.dtype, kAttentionBlock);
    const BOperand operand{BSource::kColumns, types.dtype, rows, stride * types.b_size, kAttentionBlock, d_v};
    for (int64_t j = 0; j < o_width / 16; ++j, to += parts * bytes) {
      pack_b(types.kernels, operand, j, 1, 0, kAttentionBlock, to);
      if (parts > 1) std::memcpy(to + bytes, to, static_cast<size_t>(bytes));
    }
  }

  bool is_finite(const BlockRows& v, int64_t keys) const {
    for (int64_t j = 0; j < keys; ++j) {
      const char* row = v.data + j * v.stride * types.b_size;
      if (!std::isfinite(rows_of.dot(row, row, d_v, types.dtype))) return false;
    }
    return true;
  }

  void finish(int64_t kv_head, int64_t row, int64_t n, const Scratch& w) const {
    for (int64_t i = 0; i < n * group; ++i) {
      const int64_t r = row + i / group, head = kv_head * group + i % group;
      float max = w.max[i], sum = w.sum[i], factor = 1;
      if (args.sinks) {
        float sink;
        load(args.sinks, head * args.sinks.stride(0), 1, 1, &sink);
        const float top = std::max(max, sink);
        factor = exp_of(max - top);
        sum = sum * factor + exp_of(sink - top);
        max = top;
      }
      char* out =
          static_cast<char*>(args.out.data) + (r * args.out.stride(0) + head * args.out.stride(1)) * types.b_size;
      rows_of.scale_to(w.o + i * o_width, sum == 0 ? 0 : factor / sum, out, types.dtype, d_v);
      if (args.lse)
        args.lse.as<float>()[r * args.lse.stride(0) + head * args.lse.stride(1)] =
            sum == 0 ? -std::numeric_limits<float>::infinity() : max + std::log(sum);
    }
  }
};

Forward forward_of(const GemmKernels& kernels, Isa level, const AttentionArgs& args) {
  return {args, AttentionTypes(kernels, args.q.dtype), score_rows_for(level)};
}
Isa rows_level() { return std::min(isa(), Isa::kAvx512); }

}  // namespace

int64_t attention_with_workspace(const GemmKernels& kernels, const AttentionArgs& args, const KernelContext& kernel) {
  return forward_of(kernels, rows_level(), args).carve(nullptr).bytes * workers_of(kernel);
}
void attention_with(const GemmKernels& kernels, const AttentionArgs& args, const KernelContext& kernel) {
  if (args.q.numel() > 0) forward_of(kernels, rows_level(), args).run(kernel);
}

template <Isa kIsa>
const char* AttentionLevel<kIsa>::decline(const AttentionArgs& args, const KernelContext&) {
  return decline_attention(args, kIsa);
}
template <Isa kIsa>
void AttentionLevel<kIsa>::run(const AttentionArgs& args, const KernelContext& kernel) {
  if (args.q.numel() > 0) forward_of(kernels_for(kIsa), kIsa, args).run(kernel);
}
template <Isa kIsa>
int64_t AttentionLevel<kIsa>::workspace(const AttentionArgs& args, const KernelContext& kernel) {
  return forward_of(kernels_for(kIsa), kIsa, args).carve(nullptr).bytes * workers_of(kernel);
}

#define PMETAL_LEVEL(level)                                                                        \
  template const char* AttentionLevel<level>::decline(const AttentionArgs&, const KernelContext&); \
  template void AttentionLevel<level>::run(const AttentionArgs&, const KernelContext&);            \
  template int64_t AttentionLevel<level>::workspace(const AttentionArgs&, const KernelContext&);
PMETAL_LEVEL(Isa::kAmx)
PMETAL_LEVEL(Isa::kAvx512Bf16)
PMETAL_LEVEL(Isa::kAvx512)
PMETAL_LEVEL(Isa::kAvx2)
#undef PMETAL_LEVEL

}  // namespace pmetal::cpu
