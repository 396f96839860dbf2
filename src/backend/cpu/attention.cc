// attention forward, plain: online softmax over blocks of 64 keys (Dao et al. 2022) at absolute multiples of 64. A task
// is a tile of query rows and one key/value head with the query heads that share it; a block is converted once per
// tile, keys transposed, so that scores are sums over d for 64 keys side by side. Each row keeps its own maximum and
// sum and visits the blocks it sees in order: tiles and cuts of the queries change no bit.
// With sinks, lse counts the sink: out is normalised by it and backward needs it.
#include "backend/cpu/attention.h"

#include "backend/cpu/attention_amx.h"
#include "backend/cpu/attention_gemm.h"
#include "backend/cpu/attention_tile.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::AttentionArgs;
using ops::kAttentionBlock;

template <class A>
struct Forward {
  const AttentionArgs& args;
  int64_t q_heads = args.q.dim(1), d_k = args.q.dim(2), d_v = args.out.dim(2);
  int64_t kv_heads = args.k.dim(1), group = q_heads / kv_heads;  // dim 1 of rows and of pages
  A scale = args.scale, cap = args.softcap;

  static int64_t scratch_of(int64_t group, int64_t d_k, int64_t d_v) {
    return kTileRows * group * (d_k + d_v + 2) + kAttentionBlock * (d_k + d_v + 1);
  }

  // rows [first, first + n) of one sequence, n <= kTileRows
  void tile(const AttentionSequence& sequence, int64_t first, int64_t n, int64_t kv_head, A* q) const {
    const A none = -std::numeric_limits<A>::infinity();
    A *sums = q + kTileRows * group * d_k, *max = sums + kTileRows * group * d_v, *weight = max + kTileRows * group;
    A *keys = weight + kTileRows * group, *values = keys + kAttentionBlock * d_k;
    A* scores = values + kAttentionBlock * d_v;
    for (int64_t r = 0; r < n; ++r)
      for (int64_t g = 0; g < group; ++g)
        load(args.q, (first + r) * args.q.stride(0) + (kv_head * group + g) * args.q.stride(1), args.q.stride(2), d_k,
             q + (r * group + g) * d_k);
    std::fill(sums, sums + n * group * d_v, A{0});
    std::fill(max, max + n * group, none);
    std::fill(weight, weight + n * group, A{0});

    const KeyRange all = seen_by_rows(args.mask, sequence, first, n);
    for (int64_t block = all.begin / kAttentionBlock; block * kAttentionBlock < all.end; ++block) {
      const int64_t base = block * kAttentionBlock, here = std::min(kAttentionBlock, sequence.keys - base);
      load_transposed(args.k, key_block(args, args.k, sequence.index, kv_head, block), here, d_k, keys);
      load_block(args.v, key_block(args, args.v, sequence.index, kv_head, block), here, d_v, values);
      for (int64_t r = 0; r < n; ++r) {
        const KeyRange seen = within(visible(args.mask, sequence.query_of(first + r), sequence.keys), base);
        if (seen.begin >= seen.end) continue;
        for (int64_t g = 0; g < group; ++g) {
          const int64_t i = r * group + g;
          products(q + i * d_k, keys, d_k, scores);
          for (int64_t j = 0; j < kAttentionBlock; ++j) scores[j] *= scale;
          if (cap > 0)
            for (int64_t j = seen.begin; j < seen.end; ++j) scores[j] = cap * std::tanh(scores[j] / cap);
          add(scores, seen, values, max[i], weight[i], sums + i * d_v);
        }
      }
    }
    for (int64_t r = 0; r < n; ++r)
      for (int64_t g = 0; g < group; ++g) {
        const int64_t i = r * group + g;
        finish(first + r, kv_head * group + g, max[i], weight[i], sums + i * d_v);
      }
  }

  // one block into one row's running softmax
  void add(A* s, KeyRange seen, const A* values, A& max, A& weight, A* sums) const {
    A top = max;
    bool nan = false;
    for (int64_t j = seen.begin; j < seen.end; ++j) {
      top = s[j] > top ? s[j] : top;
      nan |= std::isnan(s[j]);
    }
    if (nan) top = std::numeric_limits<A>::quiet_NaN();
    const A shift = top == -std::numeric_limits<A>::infinity() ? A{0} : top, factor = exp_of(max - shift);
    for (int64_t j = seen.begin; j < seen.end; ++j) s[j] = exp_of(s[j] - shift);
    weight = weight * factor + total(s + seen.begin, seen.end - seen.begin);
    max = top;
    if (factor != 1)
      for (int64_t i = 0; i < d_v; ++i) sums[i] *= factor;
    add_rows(s, seen, values, d_v, sums);
  }

  void finish(int64_t row, int64_t head, A max, A weight, A* sums) const {
    if (args.sinks) {
      A sink;
      load(args.sinks, head * args.sinks.stride(0), 1, 1, &sink);
      const A top = std::max(max, sink), factor = exp_of(max - top);
      weight = weight * factor + exp_of(sink - top);
      for (int64_t i = 0; i < d_v; ++i) sums[i] *= factor;
      max = top;
    }
    const A inverse = weight == 0 ? A{0} : A{1} / weight;
    for (int64_t i = 0; i < d_v; ++i) sums[i] *= inverse;
    store(args.out, row * args.out.stride(0) + head * args.out.stride(1), args.out.stride(2), d_v, sums);
    if (args.lse) {
      const A lse = weight == 0 ? -std::numeric_limits<A>::infinity() : max + std::log(weight);
      store(args.lse, row * args.lse.stride(0) + head * args.lse.stride(1), 1, 1, &lse);
    }
  }
};

}  // namespace

int64_t attention_plain_workspace(const AttentionArgs& args, const KernelContext& kernel) {
  const int64_t scratch = Forward<float>::scratch_of(args.q.dim(1) / args.k.dim(1), args.q.dim(2), args.out.dim(2));
  return workers_of(kernel) * scratch * (is_double(args.q.dtype) ? 8 : 4);
}

void attention_plain(const AttentionArgs& args, const KernelContext& kernel) {
  with_accumulator(args.q.dtype, [&](auto zero) {
    using A = decltype(zero);
    const Forward<A> forward{args};
    const int64_t scratch = Forward<A>::scratch_of(forward.group, forward.d_k, forward.d_v);
    for_tiles(args, kernel,
              [&](const AttentionSequence& sequence, int64_t first, int64_t n, int64_t kv_head, int worker) {
                forward.tile(sequence, first, n, kv_head, static_cast<A*>(kernel.workspace) + worker * scratch);
              });
  });
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
using cpu::attention_candidate;
using cpu::Isa;
const Candidate<AttentionArgs> kCandidates[] = {
    {"amx", cpu::attention_amx_decline, cpu::attention_amx, cpu::attention_amx_workspace},
    attention_candidate<Isa::kAmx, AttentionArgs>("amx_rows"),
    attention_candidate<Isa::kAvx512Bf16, AttentionArgs>("avx512_bf16"),
    attention_candidate<Isa::kAvx512, AttentionArgs>("avx512"),
    attention_candidate<Isa::kAvx2, AttentionArgs>("avx2"),
    {"plain", nullptr, cpu::attention_plain, cpu::attention_plain_workspace}};
}  // namespace
const KernelList<AttentionArgs> attention_cpu = {"attention", kCandidates};
}  // namespace pmetal::ops
