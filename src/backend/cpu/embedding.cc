// embedding, plain: decodes one row per token. Backward adds token by token, columns cut among threads.
#include "backend/cpu/embedding.h"

#include "backend/cpu/plain.h"
#include "backend/cpu/simd_level.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::EmbeddingArgs;
using ops::EmbeddingBackwardArgs;

template <class A>
void forward(const EmbeddingArgs& args, const KernelContext& kernel) {
  const Rows y(args.y);
  const int64_t n = y.n, vocabulary = args.weight ? args.weight->out : args.dense.dim(0);
  for_items(kernel, y.rows, [&](int64_t t, int worker) {
    const int64_t id = args.ids.as<int32_t>()[t * args.ids.stride(0)];
    PMETAL_ASSERT(id >= 0 && id < vocabulary, "token id {} of a vocabulary of {}", id, vocabulary);
    View source = args.dense;
    int64_t from = args.dense ? id * args.dense.stride(0) : 0;
    if (args.weight) {
      source = View{static_cast<float*>(kernel.workspace) + worker * n, DType::kF32, 1, {n}, {1}};
      args.weight->format->decode_rows(*args.weight, id, id + 1, source.as<float>());
    }
    for (int64_t c = 0; c < n; c += kBlock) {
      const int64_t width = std::min(kBlock, n - c);
      A v[kBlock];
      load(source, from + c * source.stride(-1), source.stride(-1), width, v);
      if (args.scale != 1)
        for (int64_t i = 0; i < width; ++i) v[i] *= static_cast<A>(args.scale);
      store(args.y, y.offset(t) + c * y.step, y.step, width, v);
    }
  });
}

template <class A>
void backward(const EmbeddingBackwardArgs& args, const KernelContext& kernel) {
  const Rows dy(args.dy);
  constexpr int64_t kColumns = 128;
  kernel.threads->parallel_for((dy.n + kColumns - 1) / kColumns, 1, [&](int64_t begin, int64_t end) {
    A v[kColumns], w[kColumns];
    for (int64_t b = begin; b < end; ++b) {
      const int64_t c = b * kColumns, width = std::min(kColumns, dy.n - c);
      for (int64_t t = 0; t < dy.rows; ++t) {
        const int64_t id = args.ids.as<int32_t>()[t * args.ids.stride(0)];
        if (id == args.padding_index) continue;
        PMETAL_ASSERT(id >= 0 && id < args.dweight.dim(0), "token id {} of {}", id, args.dweight.dim(0));
        const int64_t at = id * args.dweight.stride(0) + c;
        load(args.dy, dy.offset(t) + c * dy.step, dy.step, width, v);
        load(args.dweight, at, 1, width, w);
        axpy(static_cast<A>(args.scale), v, w, width);
        store(args.dweight, at, 1, width, w);
      }
    }
  });
}

}  // namespace

int64_t embedding_plain_workspace(const EmbeddingArgs& args, const KernelContext& kernel) {
  return args.weight ? workers_of(kernel) * args.weight->in * 4 : 0;
}

void embedding_plain(const EmbeddingArgs& args, const KernelContext& kernel) {
  with_accumulator(args.y.dtype, [&](auto zero) { forward<decltype(zero)>(args, kernel); });
}

void embedding_backward_plain(const EmbeddingBackwardArgs& args, const KernelContext& kernel) {
  with_accumulator(args.dweight.dtype, [&](auto zero) { backward<decltype(zero)>(args, kernel); });
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
using cpu::simd_candidate;
const Candidate<EmbeddingArgs> kForward[] = {simd_candidate<cpu::Avx512Bf16, EmbeddingArgs>("avx512_bf16"),
                                             simd_candidate<cpu::Avx512, EmbeddingArgs>("avx512"),
                                             simd_candidate<cpu::Avx2, EmbeddingArgs>("avx2"),
                                             {"plain", nullptr, cpu::embedding_plain, cpu::embedding_plain_workspace}};
const Candidate<EmbeddingBackwardArgs> kBackward[] = {{"plain", nullptr, cpu::embedding_backward_plain}};
}  // namespace
const KernelList<EmbeddingArgs> embedding_cpu = {"embedding", kForward};
const KernelList<EmbeddingBackwardArgs> embedding_backward_cpu = {"embedding_backward", kBackward};
}  // namespace pmetal::ops
