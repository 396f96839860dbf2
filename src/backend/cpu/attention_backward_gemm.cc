// attention backward on the matrix kernels of gemm/ (the formulas of attention_backward.cc). A task owns one key/value
// head of one sequence, hence all gradients it writes:
//   once            Q, dO of the group's heads as A and as B operands; D = Σ out · dout
//   for each block of 64 keys, for each tile of M = 128 (query, head) rows that sees some of it:
//     S = Q Kᵀ, dP = dO Vᵀ [M, 64];  rows: P, dS;  dQ += dS K;  dV += Pᵀ dO;  dK += dSᵀ Q
// dQ is kept in f32 for the sequence, dK and dV for the block; each element is one chain in order of keys or queries.
#include <cmath>

#include "backend/cpu/attention_blocks.h"
#include "backend/cpu/attention_gemm.h"
#include "backend/cpu/plain.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::AttentionArgs;
using ops::AttentionBackwardArgs;
using ops::kAttentionBlock;

constexpr int64_t kTileRows = 128;

struct Backward {
  const AttentionBackwardArgs& args;
  AttentionTypes types;
  const ScoreRows& rows_of;
  const AttentionArgs& f = args.forward;
  int64_t d_k = f.q.dim(2), d_v = f.out.dim(2), kv_heads = f.k.dim(1), group = f.q.dim(1) / kv_heads;
  int64_t tile = std::max<int64_t>(1, kTileRows / group) * group;  // (query, head) rows
  int64_t max_rows = most_query_rows(f) * group;
  int64_t tiles = (max_rows + tile - 1) / tile;
  int64_t k_width = padded(d_k, 32), v_width = padded(d_v, 32);
  APacked across{types.a, types.kernels.a_tiled&& types.a == DType::kBF16, padded(tile, 32)};

  struct Scratch {
    char *q, *dout, *q_columns, *dout_columns;  // A operands; B operands, tile after tile
    char *k_rows, *v_rows, *k_columns, *stage, *p, *ds, *p_across;
    float *s, *dp, *dq, *dk, *dv, *lse, *delta;
    int64_t bytes;
  };
  int64_t column_bytes(int64_t d) const { return types.values_bytes(types.a, tile, d); }
  Scratch carve(void* data) const {
    Carver c(data);
    Scratch w;
    w.q = c.take<char>(tiles * tile * k_width * types.a_size);
    w.dout = c.take<char>(tiles * tile * v_width * types.a_size);
    w.q_columns = c.take<char>(tiles * column_bytes(d_k));
    w.dout_columns = c.take<char>(tiles * column_bytes(d_v));
    w.k_rows = c.take<char>(types.keys_bytes(d_k));
    w.v_rows = c.take<char>(types.keys_bytes(d_v));
    w.k_columns = c.take<char>(types.values_bytes(types.dtype, kAttentionBlock, d_k));
    w.stage = c.take<char>(kAttentionBlock * std::max(d_k, d_v) * types.b_size);
    w.p = c.take<char>(tile * kAttentionBlock * types.a_size);
    w.ds = c.take<char>(tile * kAttentionBlock * types.a_size);
    w.p_across = c.take<char>(kAttentionBlock / 16 * across.group_bytes());
    w.s = c.take<float>(tile * kAttentionBlock);
    w.dp = c.take<float>(tile * kAttentionBlock);
    w.dq = c.take<float>(tiles * tile * k_width);
    w.dk = c.take<float>(kAttentionBlock * k_width);
    w.dv = c.take<float>(kAttentionBlock * v_width);
    w.lse = c.take<float>(tiles * tile);
    w.delta = c.take<float>(tiles * tile);
    w.bytes = c.used();
    return w;
  }

  void run(const KernelContext& kernel) const {
    const int64_t per_worker = carve(nullptr).bytes;
    for_items(kernel, f.kv_len.dim(0) * kv_heads, [&](int64_t item, int worker) {
      task(sequence_at(f, item / kv_heads), item % kv_heads,
           carve(static_cast<char*>(kernel.workspace) + worker * per_worker));
    });
  }

  int64_t head_offset(const View& v, const AttentionSequence& sequence, int64_t kv_head, int64_t i) const {
    return (sequence.first_row + i / group) * v.stride(0) + (kv_head * group + i % group) * v.stride(1);
  }

  void task(const AttentionSequence& sequence, int64_t kv_head, const Scratch& w) const {
    const int64_t m = sequence.rows * group;
    for (int64_t i = 0; i < m; ++i) {
      const int64_t out = head_offset(f.out, sequence, kv_head, i), dout = head_offset(args.dout, sequence, kv_head, i);
      types.put_row(f.q, head_offset(f.q, sequence, kv_head, i), d_k, w.q + i * k_width * types.a_size, k_width);
      types.put_row(args.dout, dout, d_v, w.dout + i * v_width * types.a_size, v_width);
      w.lse[i] = f.lse.as<float>()[head_offset(f.lse, sequence, kv_head, i)];
      w.delta[i] = rows_of.dot(static_cast<const char*>(f.out.data) + out * types.b_size,
                               static_cast<const char*>(args.dout.data) + dout * types.b_size, d_v, types.dtype);
    }
    for (int64_t t = 0; t * tile < m; ++t) {
      const int64_t n = std::min(tile, m - t * tile);
      types.pack_values(types.a, w.q + t * tile * k_width * types.a_size, k_width, n, d_k,
                        w.q_columns + t * column_bytes(d_k));
      types.pack_values(types.a, w.dout + t * tile * v_width * types.a_size, v_width, n, d_v,
                        w.dout_columns + t * column_bytes(d_v));
    }
    std::fill(w.dq, w.dq + m * k_width, 0.f);
    for (int64_t b = 0; b * kAttentionBlock < sequence.keys; ++b) block(sequence, kv_head, b, w);
    for (int64_t i = 0; i < m; ++i) put(args.dq, head_offset(args.dq, sequence, kv_head, i), w.dq + i * k_width, d_k);
  }

  void put(const View& v, int64_t offset, const float* row, int64_t n) const {
    rows_of.scale_to(row, 1, static_cast<char*>(v.data) + offset * types.b_size, types.dtype, n);
  }

  void block(const AttentionSequence& sequence, int64_t kv_head, int64_t b, const Scratch& w) const {
    const int64_t base = b * kAttentionBlock, keys = std::min(kAttentionBlock, sequence.keys - base);
    const int64_t m = sequence.rows * group;
    {
      const BlockRows v(types, f.v, key_block(f, f.v, sequence.index, kv_head, b), keys, d_v, w.stage);
      types.pack_keys(v.data, v.stride, kAttentionBlock, d_v, w.v_rows);
      const BlockRows k(types, f.k, key_block(f, f.k, sequence.index, kv_head, b), keys, d_k, w.stage);
      types.pack_keys(k.data, k.stride, kAttentionBlock, d_k, w.k_rows);
      types.pack_values(types.dtype, k.data, k.stride, kAttentionBlock, d_k, w.k_columns);
    }
    std::fill(w.dk, w.dk + kAttentionBlock * k_width, 0.f);
    std::fill(w.dv, w.dv + kAttentionBlock * v_width, 0.f);
    for (int64_t first = 0; first < m; first += tile) {
      const int64_t n = std::min(tile, m - first);
      if (sees(sequence, first, n, base, keys)) tile_of_block(sequence, first, n, base, keys, w);
    }
    const int64_t row = f.cu_k.as<int32_t>()[sequence.index] + base;
    for (int64_t j = 0; j < keys; ++j) {
      put(args.dk, (row + j) * args.dk.stride(0) + kv_head * args.dk.stride(1), w.dk + j * k_width, d_k);
      put(args.dv, (row + j) * args.dv.stride(0) + kv_head * args.dv.stride(1), w.dv + j * v_width, d_v);
    }
  }

  KeyRange seen_by(const AttentionSequence& sequence, int64_t i) const {
    return visible(f.mask, sequence.query_of(sequence.first_row + i / group), sequence.keys);
  }
  bool sees(const AttentionSequence& sequence, int64_t first, int64_t n, int64_t base, int64_t keys) const {
    for (int64_t i = first; i < first + n; i += group)
      if (const KeyRange seen = seen_by(sequence, i); seen.begin < base + keys && seen.end > base) return true;
    return false;
  }

  void tile_of_block(const AttentionSequence& sequence, int64_t first, int64_t n, int64_t base, int64_t keys,
                     const Scratch& w) const {
    const int64_t t = first / tile;
    types.multiply(types.block, n, kAttentionBlock / 16, d_k, w.q + first * k_width * types.a_size,
                   k_width * types.a_size, w.k_rows, b_block_bytes(types.dtype, d_k), w.s, kAttentionBlock, true);
    types.multiply(types.block, n, kAttentionBlock / 16, d_v, w.dout + first * v_width * types.a_size,
                   v_width * types.a_size, w.v_rows, b_block_bytes(types.dtype, d_v), w.dp, kAttentionBlock, true);
    for (int64_t i = 0; i < n; ++i) {
      const KeyRange seen = seen_by(sequence, first + i);
      const int64_t at = i * kAttentionBlock;
      rows_of.gradient(
          {w.s + at, w.dp + at, std::max<int64_t>(seen.begin - base, 0), std::min(seen.end - base, keys), f.scale,
           f.softcap, w.lse[first + i], w.delta[first + i], w.p + at * types.a_size, w.ds + at * types.a_size},
          types.a == DType::kBF16);
    }
    types.multiply(types.block, n, padded(d_k, 16) / 16, kAttentionBlock, w.ds, kAttentionBlock * types.a_size,
                   w.k_columns, b_block_bytes(types.dtype, kAttentionBlock), w.dq + first * k_width, k_width, false);
    add_across(w.p, n, w.dout_columns + t * column_bytes(d_v), d_v, w.dv, v_width, w);
    add_across(w.ds, n, w.q_columns + t * column_bytes(d_k), d_k, w.dk, k_width, w);
  }

  // c [64, d] += xᵀ · b, x [n, 64]
  void add_across(const char* x, int64_t n, const char* b, int64_t d, float* c, int64_t c_stride,
                  const Scratch& w) const {
    const AOperand operand{types.a, x, kAttentionBlock * types.a_size, true};
    for (int64_t g = 0; g < kAttentionBlock / 16; ++g)
      pack_a(types.kernels, operand, across, g * 16, 16, 0, n, w.p_across + g * across.group_bytes());
    BlockArgs s;
    s.rows = kAttentionBlock;
    s.n_blocks = padded(d, 16) / 16;
    s.depth = n;
    s.a = w.p_across;
    s.a_row_stride = across.row_stride();
    s.a_tile_row_stride = across.group_bytes();
    s.a_tile_stride = across.tiled ? 1024 : 64;
    s.b = b;
    s.b_stride = b_block_bytes(types.a, n);
    s.c = c;
    s.c_stride = c_stride;
    s.from_zero = false;
    types.own(s);
  }
};

Backward backward_of(const GemmKernels& kernels, Isa level, const AttentionBackwardArgs& args) {
  return {args, AttentionTypes(kernels, args.forward.q.dtype), score_rows_for(level)};
}
Isa rows_level() { return std::min(isa(), Isa::kAvx512); }

const char* decline_backward(const AttentionBackwardArgs& args, Isa needed) {
  if (args.dsinks) return "gives no gradient to sinks";
  if (args.forward.page_table) return "keys must be contiguous";
  for (const View* v : {&args.dout, &args.dq, &args.dk, &args.dv}) {
    if (v->dtype != args.forward.q.dtype) return "takes one type alone";
    if (v->stride(-1) != 1) return "rows must be dense";
  }
  return decline_attention(args.forward, needed);
}

}  // namespace

int64_t attention_backward_with_workspace(const GemmKernels& kernels, const AttentionBackwardArgs& args,
                                          const KernelContext& kernel) {
  return backward_of(kernels, rows_level(), args).carve(nullptr).bytes * workers_of(kernel);
}
void attention_backward_with(const GemmKernels& kernels, const AttentionBackwardArgs& args,
                             const KernelContext& kernel) {
  if (args.forward.q.numel() > 0) backward_of(kernels, rows_level(), args).run(kernel);
}

template <Isa kIsa>
const char* AttentionLevel<kIsa>::decline(const AttentionBackwardArgs& args, const KernelContext&) {
  return decline_backward(args, kIsa);
}
template <Isa kIsa>
void AttentionLevel<kIsa>::run(const AttentionBackwardArgs& args, const KernelContext& kernel) {
  if (args.forward.q.numel() > 0) backward_of(kernels_for(kIsa), kIsa, args).run(kernel);
}
template <Isa kIsa>
int64_t AttentionLevel<kIsa>::workspace(const AttentionBackwardArgs& args, const KernelContext& kernel) {
  return backward_of(kernels_for(kIsa), kIsa, args).carve(nullptr).bytes * workers_of(kernel);
}

#define PMETAL_LEVEL(level)                                                                                \
  template const char* AttentionLevel<level>::decline(const AttentionBackwardArgs&, const KernelContext&); \
  template void AttentionLevel<level>::run(const AttentionBackwardArgs&, const KernelContext&);            \
  template int64_t AttentionLevel<level>::workspace(const AttentionBackwardArgs&, const KernelContext&);
PMETAL_LEVEL(Isa::kAmx)
PMETAL_LEVEL(Isa::kAvx512Bf16)
PMETAL_LEVEL(Isa::kAvx512)
PMETAL_LEVEL(Isa::kAvx2)
#undef PMETAL_LEVEL

}  // namespace pmetal::cpu
