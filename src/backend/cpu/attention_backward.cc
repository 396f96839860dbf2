// attention backward, plain, memory O(T). With P = exp(s − lse), D = Σ out · dout per row and head:
//   dV = Pᵀ dO,  dS = P · (dO Vᵀ − D) (· (1 − (s / cap)²)),  dQ = scale · dS K,  dK = scale · dSᵀ Q,  dsink = −P_sink ·
//   D
// dq is cut by tiles of query rows; dk and dv by blocks of 64 keys, whose queries are visited in order: deterministic.
#include "backend/cpu/attention_amx.h"
#include "backend/cpu/attention_gemm.h"
#include "backend/cpu/attention_tile.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::AttentionArgs;
using ops::AttentionBackwardArgs;
using ops::kAttentionBlock;

template <class A>
struct Backward {
  const AttentionBackwardArgs& args;
  const KernelContext& kernel;
  const AttentionArgs& f = args.forward;
  int64_t rows = f.q.dim(0), q_heads = f.q.dim(1), d_k = f.q.dim(2), d_v = f.out.dim(2);
  int64_t kv_heads = f.k.dim(1), group = q_heads / kv_heads;
  A scale = f.scale, cap = f.softcap;
  A* deltas = static_cast<A*>(kernel.workspace);  // [rows, q_heads]
  A* scratch = deltas + rows * q_heads;
  int64_t per_worker = scratch_of(group, d_k, d_v);

  // converted blocks and sums of 64 keys, one row of q and dout, P and dS, and dq of a tile
  static int64_t scratch_of(int64_t group, int64_t d_k, int64_t d_v) {
    return (2 * kAttentionBlock + 1) * (d_k + d_v) + 2 * kAttentionBlock + kTileRows * group * d_k;
  }

  const A* head_row(const View& v, int64_t row, int64_t head, int64_t n, A* to) const {
    return read(v, row * v.stride(0) + head * v.stride(1), v.stride(2), n, to);
  }
  void put(const View& v, int64_t row, int64_t head, int64_t n, const A* from) const {
    store(v, row * v.stride(0) + head * v.stride(1), v.stride(2), n, from);
  }
  A lse(int64_t row, int64_t head) const {
    A value;
    load(f.lse, row * f.lse.stride(0) + head * f.lse.stride(1), 1, 1, &value);
    return value;
  }
  // P and dS of one row and head against one block: keys [d_k, 64], values [d_v, 64] transposed
  void scores(const A* q, const A* dout, const A* keys, const A* values, KeyRange seen, A log_sum, A delta, A* p,
              A* ds) const {
    products(q, keys, d_k, p);
    products(dout, values, d_v, ds);
    for (int64_t j = 0; j < kAttentionBlock; ++j) p[j] *= scale;
    for (int64_t j = 0; j < kAttentionBlock; ++j) ds[j] = (ds[j] - delta) * scale;
    if (cap > 0)
      for (int64_t j = seen.begin; j < seen.end; ++j) {
        const A t = std::tanh(p[j] / cap);
        p[j] = cap * t;
        ds[j] *= A{1} - t * t;
      }
    for (int64_t j = seen.begin; j < seen.end; ++j) {
      p[j] = exp_of(p[j] - log_sum);
      ds[j] *= p[j];
    }
  }

  void delta() const {
    for_items(kernel, rows, [&](int64_t row, int worker) {
      A* own = scratch + worker * per_worker;
      for (int64_t h = 0; h < q_heads; ++h)
        deltas[row * q_heads + h] =
            dot(head_row(f.out, row, h, d_v, own), head_row(args.dout, row, h, d_v, own + d_v), d_v);
    });
  }

  // dq of a tile of rows: blocks are converted once for all its rows and heads
  void query_tile(const AttentionSequence& sequence, int64_t first, int64_t n, int64_t kv_head, A* own) const {
    A *keys = own, *values = keys + kAttentionBlock * d_k, *rows_of_keys = values + kAttentionBlock * d_v;
    A *q_line = rows_of_keys + kAttentionBlock * d_k, *o_line = q_line + d_k;
    A *p = o_line + d_v, *ds = p + kAttentionBlock;
    const KeyRange all = seen_by_rows(f.mask, sequence, first, n);
    A* tile = ds + kAttentionBlock;  // [kTileRows, group, d_k]
    std::fill(tile, tile + n * group * d_k, A{0});
    for (int64_t block = all.begin / kAttentionBlock; block * kAttentionBlock < all.end; ++block) {
      const int64_t base = block * kAttentionBlock, here = std::min(kAttentionBlock, sequence.keys - base);
      const KeyBlock k_at = cpu::key_block(f, f.k, sequence.index, kv_head, block);
      load_block(f.k, k_at, here, d_k, rows_of_keys);
      load_transposed(f.k, k_at, here, d_k, keys);
      load_transposed(f.v, cpu::key_block(f, f.v, sequence.index, kv_head, block), here, d_v, values);
      for (int64_t r = 0; r < n; ++r) {
        const KeyRange seen = within(visible(f.mask, sequence.query_of(first + r), sequence.keys), base);
        if (seen.begin >= seen.end) continue;
        for (int64_t g = 0; g < group; ++g) {
          const int64_t row = first + r, head = kv_head * group + g;
          scores(head_row(f.q, row, head, d_k, q_line), head_row(args.dout, row, head, d_v, o_line), keys, values, seen,
                 lse(row, head), deltas[row * q_heads + head], p, ds);
          add_rows(ds, seen, rows_of_keys, d_k, tile + (r * group + g) * d_k);
        }
      }
    }
    for (int64_t r = 0; r < n; ++r)
      for (int64_t g = 0; g < group; ++g)
        put(args.dq, first + r, kv_head * group + g, d_k, tile + (r * group + g) * d_k);
  }

  void queries() const {
    for_tiles(f, kernel, [&](const AttentionSequence& sequence, int64_t first, int64_t n, int64_t kv_head, int worker) {
      query_tile(sequence, first, n, kv_head, scratch + worker * per_worker);
    });
  }

  // dk and dv of one block of keys of one sequence and kv head
  void key_block(const AttentionSequence& sequence, int64_t kv_head, int64_t block, A* own) const {
    const int64_t base = block * kAttentionBlock, n = std::min(kAttentionBlock, sequence.keys - base);
    const int64_t first = f.cu_k.as<int32_t>()[sequence.index] + base;
    A *keys = own, *values = keys + kAttentionBlock * d_k, *dk = values + kAttentionBlock * d_v;
    A *dv = dk + kAttentionBlock * d_k, *q_line = dv + kAttentionBlock * d_v, *o_line = q_line + d_k;
    A *p = o_line + d_v, *ds = p + kAttentionBlock;
    load_transposed(f.k, cpu::key_block(f, f.k, sequence.index, kv_head, block), n, d_k, keys);
    load_transposed(f.v, cpu::key_block(f, f.v, sequence.index, kv_head, block), n, d_v, values);
    std::fill(dk, dk + kAttentionBlock * (d_k + d_v), A{0});
    for (int64_t row = sequence.first_row; row < sequence.first_row + sequence.rows; ++row) {
      const KeyRange seen = within(visible(f.mask, sequence.query_of(row), sequence.keys), base);
      if (seen.begin >= seen.end) continue;
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        const A* q = head_row(f.q, row, head, d_k, q_line);
        const A* dout = head_row(args.dout, row, head, d_v, o_line);
        scores(q, dout, keys, values, seen, lse(row, head), deltas[row * q_heads + head], p, ds);
        for (int64_t j = seen.begin; j < seen.end; ++j) axpy(p[j], dout, dv + j * d_v, d_v);
        for (int64_t j = seen.begin; j < seen.end; ++j) axpy(ds[j], q, dk + j * d_k, d_k);
      }
    }
    for (int64_t j = 0; j < n; ++j) {
      put(args.dk, first + j, kv_head, d_k, dk + j * d_k);
      put(args.dv, first + j, kv_head, d_v, dv + j * d_v);
    }
  }

  void keys() const {
    const int64_t sequences = f.kv_len.dim(0);
    int64_t blocks = 0;
    for (int64_t s = 0; s < sequences; ++s)
      blocks = std::max(blocks, (sequence_at(f, s).keys + kAttentionBlock - 1) / kAttentionBlock);
    for_items(kernel, sequences * blocks * kv_heads, [&](int64_t item, int worker) {
      const AttentionSequence sequence = sequence_at(f, item / kv_heads / blocks);
      const int64_t block = item / kv_heads % blocks;
      if (block * kAttentionBlock >= sequence.keys) return;
      key_block(sequence, item % kv_heads, block, scratch + worker * per_worker);
    });
  }

  void sinks() const {
    kernel.threads->parallel_for(q_heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t head = begin; head < end; ++head) {
        A sink, sum;
        load(f.sinks, head * f.sinks.stride(0), 1, 1, &sink);
        load(args.dsinks, head * args.dsinks.stride(0), 1, 1, &sum);
        for (int64_t row = 0; row < rows; ++row) sum -= exp_of(sink - lse(row, head)) * deltas[row * q_heads + head];
        store(args.dsinks, head * args.dsinks.stride(0), 1, 1, &sum);
      }
    });
  }
};

}  // namespace

int64_t attention_backward_plain_workspace(const AttentionBackwardArgs& args, const KernelContext& kernel) {
  const AttentionArgs& f = args.forward;
  const int64_t scratch = Backward<float>::scratch_of(f.q.dim(1) / f.k.dim(1), f.q.dim(2), f.out.dim(2));
  return (f.q.dim(0) * f.q.dim(1) + workers_of(kernel) * scratch) * (is_double(f.q.dtype) ? 8 : 4);
}

void attention_backward_plain(const AttentionBackwardArgs& args, const KernelContext& kernel) {
  PMETAL_ASSERT(!args.forward.page_table, "attention backward wants contiguous keys");
  with_accumulator(args.forward.q.dtype, [&](auto zero) {
    const Backward<decltype(zero)> backward{args, kernel};
    backward.delta();
    backward.queries();
    backward.keys();
    if (args.dsinks) backward.sinks();
  });
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
using cpu::attention_candidate;
using cpu::Isa;
const Candidate<AttentionBackwardArgs> kCandidates[] = {
    {"amx", cpu::attention_backward_amx_decline, cpu::attention_backward_amx, cpu::attention_backward_amx_workspace},
    attention_candidate<Isa::kAmx, AttentionBackwardArgs>("amx_rows"),
    attention_candidate<Isa::kAvx512Bf16, AttentionBackwardArgs>("avx512_bf16"),
    attention_candidate<Isa::kAvx512, AttentionBackwardArgs>("avx512"),
    attention_candidate<Isa::kAvx2, AttentionBackwardArgs>("avx2"),
    {"plain", nullptr, cpu::attention_backward_plain, cpu::attention_backward_plain_workspace}};
}  // namespace
const KernelList<AttentionBackwardArgs> attention_backward_cpu = {"attention_backward", kCandidates};
}  // namespace pmetal::ops
