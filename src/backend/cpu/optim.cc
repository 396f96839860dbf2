// adamw and sum_squares, plain.
#include "backend/cpu/optim.h"

#include "backend/cpu/plain.h"
#include "backend/cpu/simd_level.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

constexpr int64_t kSumBlock = 4096;

}  // namespace

void adamw_plain(const ops::AdamWArgs& args, const KernelContext& kernel) {
  const double step = static_cast<double>(args.step);
  const float decay = static_cast<float>(1.0 - static_cast<double>(args.lr) * static_cast<double>(args.weight_decay));
  const float step_size =
      static_cast<float>(static_cast<double>(args.lr) / (1.0 - std::pow(static_cast<double>(args.beta1), step)));
  const float root_scale = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(static_cast<double>(args.beta2), step)));
  const float b1 = args.beta1, b2 = args.beta2, eps = args.eps, scale = args.grad_scale;
  const float c1 = static_cast<float>(1.0 - static_cast<double>(b1));
  const float c2 = static_cast<float>(1.0 - static_cast<double>(b2));
  for_blocks(kernel, 1, args.master.numel(), [&](int64_t, int64_t c, int64_t n) {
    float* w = args.master.as<float>() + c;
    const float* g = args.grad.as<float>() + c;
    float* m = args.m.as<float>() + c;
    float* v = args.v.as<float>() + c;
    for (int64_t i = 0; i < n; ++i) {
      const float gradient = g[i] * scale;
      m[i] = b1 * m[i] + c1 * gradient;
      v[i] = b2 * v[i] + c2 * gradient * gradient;
      w[i] = w[i] * decay - step_size * m[i] / (std::sqrt(v[i]) * root_scale + eps);
    }
    if (args.weight) store(args.weight, c, 1, n, w);
  });
}

int64_t sum_squares_plain_workspace(const ops::SumSquaresArgs& args, const KernelContext&) {
  return (args.x.numel() + kSumBlock - 1) / kSumBlock * 8;
}

void sum_squares_plain(const ops::SumSquaresArgs& args, const KernelContext& kernel) {
  const int64_t n = args.x.numel(), blocks = (n + kSumBlock - 1) / kSumBlock;
  double* partial = static_cast<double*>(kernel.workspace);
  kernel.threads->parallel_for(blocks, 4, [&](int64_t begin, int64_t end) {
    double v[kSumBlock];
    for (int64_t b = begin; b < end; ++b) {
      const int64_t width = std::min(kSumBlock, n - b * kSumBlock);
      load(args.x, b * kSumBlock, 1, width, v);
      partial[b] = dot(v, v, width);
    }
  });
  double sum = 0;
  for (int64_t b = 0; b < blocks; ++b) sum += partial[b];
  *args.out.as<double>() = sum;
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
using cpu::simd_candidate;
const Candidate<AdamWArgs> kAdamW[] = {simd_candidate<cpu::Avx512, AdamWArgs>("avx512"),
                                       simd_candidate<cpu::Avx2, AdamWArgs>("avx2"),
                                       {"plain", nullptr, cpu::adamw_plain}};
const Candidate<SumSquaresArgs> kSumSquares[] = {
    simd_candidate<cpu::Avx512, SumSquaresArgs>("avx512"),
    simd_candidate<cpu::Avx2, SumSquaresArgs>("avx2"),
    {"plain", nullptr, cpu::sum_squares_plain, cpu::sum_squares_plain_workspace}};
}  // namespace
const KernelList<AdamWArgs> adamw_cpu = {"adamw", kAdamW};
const KernelList<SumSquaresArgs> sum_squares_cpu = {"sum_squares", kSumSquares};
}  // namespace pmetal::ops
