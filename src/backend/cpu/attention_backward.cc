// attention backward, plain, memory O(T). With P = exp(s − lse), D = Σ out · dout per row and head:
//   dV = Pᵀ dO,  dS = P · (dO Vᵀ − D) (· (1 − (s / cap)²)),  dQ = scale · dS K,  dK = scale · dSᵀ Q,  dsink = −P_sink ·
//   D
// dq is cut by query row; dk and dv by blocks of 64 keys, whose queries are visited in order: deterministic.
#include "backend/cpu/attention.h"
#include "backend/cpu/plain.h"

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
  int64_t per_worker = scratch_of(d_k, d_v);

  static int64_t scratch_of(int64_t d_k, int64_t d_v) { return 2 * kAttentionBlock * (d_k + d_v) + 3 * (d_k + d_v); }

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
  // probability and derivative factor of one score
  A probability(A dotted, A log_sum, A& slope) const {
    A s = dotted * scale;
    slope = 1;
    if (cap > 0) {
      const A t = std::tanh(s / cap);
      s = cap * t;
      slope = A{1} - t * t;
    }
    return exp_of(s - log_sum);
  }

  void delta() const {
    for_items(kernel, rows, [&](int64_t row, int worker) {
      A* own = scratch + worker * per_worker;
      for (int64_t h = 0; h < q_heads; ++h)
        deltas[row * q_heads + h] =
            dot(head_row(f.out, row, h, d_v, own), head_row(args.dout, row, h, d_v, own + d_v), d_v);
    });
  }

  void queries() const {
    for_items(kernel, rows * q_heads, [&](int64_t item, int worker) {
      const int64_t row = item / q_heads, head = item % q_heads, kv_head = head / group;
      const AttentionSequence sequence = sequence_of_row(f, row);
      A* own = scratch + worker * per_worker;
      A *sums = own, *line = sums + d_k;
      const A* q = head_row(f.q, row, head, d_k, line + std::max(d_k, d_v));
      const A* dout = head_row(args.dout, row, head, d_v, line + std::max(d_k, d_v) + d_k);
      const A log_sum = lse(row, head), delta = deltas[row * q_heads + head];
      std::fill(sums, sums + d_k, A{0});
      const KeyRange seen = visible(f.mask, sequence.query_of(row), sequence.keys);
      const int64_t first = f.cu_k.as<int32_t>()[sequence.index];
      for (int64_t j = seen.begin; j < seen.end; ++j) {
        A slope;
        const A dp = dot(dout, head_row(f.v, first + j, kv_head, d_v, line), d_v);
        const A* key = head_row(f.k, first + j, kv_head, d_k, line);
        const A p = probability(dot(q, key, d_k), log_sum, slope);
        axpy(p * (dp - delta) * slope * scale, key, sums, d_k);
      }
      put(args.dq, row, head, d_k, sums);
    });
  }

  // one block of keys of one sequence and kv head
  void key_block(const AttentionSequence& sequence, int64_t kv_head, int64_t block, A* own) const {
    const int64_t base = block * kAttentionBlock, n = std::min(kAttentionBlock, sequence.keys - base);
    const int64_t first = f.cu_k.as<int32_t>()[sequence.index] + base;
    A *keys = own, *values = keys + kAttentionBlock * d_k, *dk = values + kAttentionBlock * d_v;
    A *dv = dk + kAttentionBlock * d_k, *q_line = dv + kAttentionBlock * d_v, *o_line = q_line + d_k;
    for (int64_t j = 0; j < n; ++j) {
      load(f.k, (first + j) * f.k.stride(0) + kv_head * f.k.stride(1), f.k.stride(2), d_k, keys + j * d_k);
      load(f.v, (first + j) * f.v.stride(0) + kv_head * f.v.stride(1), f.v.stride(2), d_v, values + j * d_v);
    }
    std::fill(dk, dk + kAttentionBlock * (d_k + d_v), A{0});
    for (int64_t row = sequence.first_row; row < sequence.first_row + sequence.rows; ++row) {
      const KeyRange seen = visible(f.mask, sequence.query_of(row), sequence.keys);
      const int64_t begin = std::max(seen.begin - base, int64_t{0}), end = std::min(seen.end - base, n);
      if (begin >= end) continue;
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        const A* q = head_row(f.q, row, head, d_k, q_line);
        const A* dout = head_row(args.dout, row, head, d_v, o_line);
        const A log_sum = lse(row, head), delta = deltas[row * q_heads + head];
        for (int64_t j = begin; j < end; ++j) {
          A slope;
          const A p = probability(dot(q, keys + j * d_k, d_k), log_sum, slope);
          const A dp = dot(dout, values + j * d_v, d_v);
          axpy(p, dout, dv + j * d_v, d_v);
          axpy(p * (dp - delta) * slope * scale, q, dk + j * d_k, d_k);
        }
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
  const int64_t scratch = Backward<float>::scratch_of(f.q.dim(2), f.out.dim(2));
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
const Candidate<AttentionBackwardArgs> kCandidates[] = {
    {"plain", nullptr, cpu::attention_backward_plain, cpu::attention_backward_plain_workspace}};
}
const KernelList<AttentionBackwardArgs> attention_backward_cpu = {"attention_backward", kCandidates};
}  // namespace pmetal::ops
