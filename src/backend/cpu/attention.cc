// attention forward, plain: online softmax over blocks of 64 keys (Dao et al. 2022), one query row and head at a time,
// blocks at absolute multiples of 64 so that how queries are cut changes no bit. A task is one query row and one
// key/value head with the query heads that share it; a converted key or value row serves them all.
// With sinks, lse counts the sink: out is normalised by it and backward needs it.
#include "backend/cpu/attention.h"

#include "backend/cpu/plain.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::AttentionArgs;
using ops::kAttentionBlock;

template <class A>
void run(const AttentionArgs& args, const KernelContext& kernel) {
  const int64_t rows = args.q.dim(0), q_heads = args.q.dim(1), d_k = args.q.dim(2), d_v = args.out.dim(2);
  const int64_t kv_heads = args.k.dim(1), group = q_heads / kv_heads;  // dim 1 of rows and of pages
  const A none = -std::numeric_limits<A>::infinity();
  const int64_t per_worker = group * (d_k + d_v + 3) + d_k + d_v + group * kAttentionBlock;
  const A scale = args.scale, cap = args.softcap;

  for_items(kernel, rows * kv_heads, [&](int64_t item, int worker) {
    const int64_t row = item / kv_heads, kv_head = item % kv_heads;
    const AttentionSequence sequence = sequence_of_row(args, row);
    A* q = static_cast<A*>(kernel.workspace) + worker * per_worker;  // [group, d_k]
    A* sums = q + group * d_k;                                       // [group, d_v]
    A* max = sums + group * d_v;
    A* weight = max + group;
    A* line = weight + group;      // one key or value row
    A* scores = line + d_k + d_v;  // [group, 64]
    for (int64_t g = 0; g < group; ++g)
      load(args.q, row * args.q.stride(0) + (kv_head * group + g) * args.q.stride(1), args.q.stride(2), d_k,
           q + g * d_k);
    std::fill(sums, sums + group * d_v, A{0});
    std::fill(max, max + group, none);
    std::fill(weight, weight + group, A{0});

    const KeyRange seen = visible(args.mask, sequence.query_of(row), sequence.keys);
    for (int64_t block = seen.begin / kAttentionBlock; block * kAttentionBlock < seen.end; ++block) {
      const int64_t base = block * kAttentionBlock;
      const int64_t begin = std::max(seen.begin, base) - base, end = std::min(seen.end, base + kAttentionBlock) - base;
      if (begin >= end) continue;
      const KeyBlock keys = key_block(args, args.k, sequence.index, kv_head, block);
      for (int64_t j = begin; j < end; ++j) {
        const A* key = read(args.k, keys.offset + j * keys.stride, args.k.stride(-1), d_k, line);
        for (int64_t g = 0; g < group; ++g) {
          A s = dot(q + g * d_k, key, d_k) * scale;
          if (cap > 0) s = cap * std::tanh(s / cap);
          scores[g * kAttentionBlock + j] = s;
        }
      }
      for (int64_t g = 0; g < group; ++g) {
        A* s = scores + g * kAttentionBlock;
        A top = max[g];
        for (int64_t j = begin; j < end; ++j) top = s[j] > top || std::isnan(s[j]) ? s[j] : top;
        const A shift = top == none ? A{0} : top, factor = exp_of(max[g] - shift);
        A added = 0;
        for (int64_t j = begin; j < end; ++j) {
          s[j] = exp_of(s[j] - shift);
          added += s[j];
        }
        weight[g] = weight[g] * factor + added;
        max[g] = top;
        if (factor != 1)
          for (int64_t i = 0; i < d_v; ++i) sums[g * d_v + i] *= factor;
      }
      const KeyBlock values = key_block(args, args.v, sequence.index, kv_head, block);
      for (int64_t j = begin; j < end; ++j) {
        const A* value = read(args.v, values.offset + j * values.stride, args.v.stride(-1), d_v, line);
        for (int64_t g = 0; g < group; ++g) axpy(scores[g * kAttentionBlock + j], value, sums + g * d_v, d_v);
      }
    }

    for (int64_t g = 0; g < group; ++g) {
      const int64_t head = kv_head * group + g;
      if (args.sinks) {
        A sink;
        load(args.sinks, head * args.sinks.stride(0), 1, 1, &sink);
        const A top = std::max(max[g], sink), factor = exp_of(max[g] - top);
        weight[g] = weight[g] * factor + exp_of(sink - top);
        for (int64_t i = 0; i < d_v; ++i) sums[g * d_v + i] *= factor;
        max[g] = top;
      }
      const A inverse = weight[g] == 0 ? A{0} : A{1} / weight[g];
      for (int64_t i = 0; i < d_v; ++i) sums[g * d_v + i] *= inverse;
      store(args.out, row * args.out.stride(0) + head * args.out.stride(1), args.out.stride(2), d_v, sums + g * d_v);
      if (args.lse) {
        const A lse = weight[g] == 0 ? none : max[g] + std::log(weight[g]);
        store(args.lse, row * args.lse.stride(0) + head * args.lse.stride(1), 1, 1, &lse);
      }
    }
  });
}

}  // namespace

int64_t attention_plain_workspace(const AttentionArgs& args, const KernelContext& kernel) {
  const int64_t group = args.q.dim(1) / args.k.dim(1), d = args.q.dim(2) + args.out.dim(2);
  const int64_t per_worker = group * (d + 3) + d + group * kAttentionBlock;
  return workers_of(kernel) * per_worker * (is_double(args.q.dtype) ? 8 : 4);
}

void attention_plain(const AttentionArgs& args, const KernelContext& kernel) {
  with_accumulator(args.q.dtype, [&](auto zero) { run<decltype(zero)>(args, kernel); });
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
const Candidate<AttentionArgs> kCandidates[] = {
    {"plain", nullptr, cpu::attention_plain, cpu::attention_plain_workspace}};
}
const KernelList<AttentionArgs> attention_cpu = {"attention", kCandidates};
}  // namespace pmetal::ops
