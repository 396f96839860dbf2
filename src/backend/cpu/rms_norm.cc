// rms_norm and its derivative, plain. With x̂ = x · rstd and g = dy · (w + offset):
//   dx = rstd · (g − x̂ · mean(g · x̂)),  dw = Σ_rows dy · x̂ (rows in order, columns cut among threads)
#include "backend/cpu/rms_norm.h"

#include "backend/cpu/plain.h"
#include "backend/cpu/simd_level.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::RmsNormArgs;
using ops::RmsNormBackwardArgs;

template <class A>
A rstd_of(const View& v, int64_t offset, int64_t step, int64_t n, float eps) {
  A scratch[kBlock], squares = 0;
  for (int64_t c = 0; c < n; c += kBlock) {
    const int64_t width = std::min(kBlock, n - c);
    const A* x = read(v, offset + c * step, step, width, scratch);
    squares += dot(x, x, width);
  }
  return A{1} / std::sqrt(squares / static_cast<A>(n) + static_cast<A>(eps));
}

template <class A>
void forward(const RmsNormArgs& args, const KernelContext& kernel) {
  const Rows x(args.x), y(args.y), residual(args.residual), sum(args.sum);
  const View& source = args.residual ? args.sum : args.x;
  const Rows in(source);
  for_rows(kernel, x.rows, x.n, [&](int64_t r) {
    A a[kBlock], b[kBlock];
    if (args.residual)
      for (int64_t c = 0; c < x.n; c += kBlock) {
        const int64_t width = std::min(kBlock, x.n - c);
        load(args.x, x.offset(r) + c * x.step, x.step, width, a);
        const A* other = read(args.residual, residual.offset(r) + c * residual.step, residual.step, width, b);
        for (int64_t i = 0; i < width; ++i) a[i] += other[i];
        store(args.sum, sum.offset(r) + c * sum.step, sum.step, width, a);
      }
    const A rstd = rstd_of<A>(source, in.offset(r), in.step, x.n, args.eps);
    for (int64_t c = 0; c < x.n; c += kBlock) {
      const int64_t width = std::min(kBlock, x.n - c);
      load(source, in.offset(r) + c * in.step, in.step, width, a);
      for (int64_t i = 0; i < width; ++i) a[i] *= rstd;
      if (args.offset == 0) round_through(source.dtype, a, width);
      const A* w = read(args.weight, c * args.weight.stride(0), args.weight.stride(0), width, b);
      const A offset = args.offset;
      for (int64_t i = 0; i < width; ++i) a[i] *= w[i] + offset;
      store(args.y, y.offset(r) + c * y.step, y.step, width, a);
    }
  });
}

template <class A>
void backward(const RmsNormBackwardArgs& args, const KernelContext& kernel) {
  const Rows x(args.x), dy(args.dy), dx(args.dx), add(args.dx_add);
  A* rstds = static_cast<A*>(kernel.workspace);
  const A offset = args.offset;
  for_rows(kernel, x.rows, x.n, [&](int64_t r) {
    const A rstd = rstds[r] = rstd_of<A>(args.x, x.offset(r), x.step, x.n, args.eps);
    if (!args.dx) return;
    A a[kBlock], b[kBlock], d[kBlock], mean = 0;
    const auto blocks = [&](auto&& body) {
      for (int64_t c = 0; c < x.n; c += kBlock) {
        const int64_t width = std::min(kBlock, x.n - c);
        const A* w = read(args.weight, c * args.weight.stride(0), args.weight.stride(0), width, b);
        load(args.dy, dy.offset(r) + c * dy.step, dy.step, width, d);
        for (int64_t i = 0; i < width; ++i) d[i] *= w[i] + offset;
        load(args.x, x.offset(r) + c * x.step, x.step, width, a);
        for (int64_t i = 0; i < width; ++i) a[i] *= rstd;
        body(c, width);
      }
    };
    blocks([&](int64_t, int64_t width) { mean += dot(d, a, width); });
    mean /= static_cast<A>(x.n);
    blocks([&](int64_t c, int64_t width) {
      for (int64_t i = 0; i < width; ++i) d[i] = rstd * (d[i] - a[i] * mean);
      if (args.dx_add) {
        const A* more = read(args.dx_add, add.offset(r) + c * add.step, add.step, width, b);
        for (int64_t i = 0; i < width; ++i) d[i] += more[i];
      }
      store(args.dx, dx.offset(r) + c * dx.step, dx.step, width, d);
    });
  });
  if (!args.dweight) return;
  constexpr int64_t kColumns = 64;
  kernel.threads->parallel_for((x.n + kColumns - 1) / kColumns, 1, [&](int64_t begin, int64_t end) {
    A a[kColumns], d[kColumns], sums[kColumns];
    for (int64_t t = begin; t < end; ++t) {
      const int64_t c = t * kColumns, width = std::min(kColumns, x.n - c);
      std::fill(sums, sums + kColumns, A{0});
      for (int64_t r = 0; r < x.rows; ++r) {
        load(args.x, x.offset(r) + c * x.step, x.step, width, a);
        for (int64_t i = 0; i < width; ++i) a[i] *= rstds[r];
        if (args.offset == 0) round_through(args.x.dtype, a, width);
        const A* g = read(args.dy, dy.offset(r) + c * dy.step, dy.step, width, d);
        for (int64_t i = 0; i < width; ++i) sums[i] += g[i] * a[i];
      }
      const A* before = read(args.dweight, c, 1, width, a);
      for (int64_t i = 0; i < width; ++i) sums[i] += before[i];
      store(args.dweight, c, 1, width, sums);
    }
  });
}

}  // namespace

void rms_norm_plain(const RmsNormArgs& args, const KernelContext& kernel) {
  if (args.x.numel() == 0) return;
  with_accumulator(args.x.dtype, [&](auto zero) { forward<decltype(zero)>(args, kernel); });
}

int64_t rms_norm_backward_plain_workspace(const RmsNormBackwardArgs& args, const KernelContext&) {
  return Rows(args.x).rows * 8;
}

void rms_norm_backward_plain(const RmsNormBackwardArgs& args, const KernelContext& kernel) {
  if (args.x.numel() == 0) return;
  with_accumulator(args.x.dtype, [&](auto zero) { backward<decltype(zero)>(args, kernel); });
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
using cpu::simd_candidate;
const Candidate<RmsNormArgs> kForward[] = {simd_candidate<cpu::Avx512Bf16, RmsNormArgs>("avx512_bf16"),
                                           simd_candidate<cpu::Avx512, RmsNormArgs>("avx512"),
                                           simd_candidate<cpu::Avx2, RmsNormArgs>("avx2"),
                                           {"plain", nullptr, cpu::rms_norm_plain}};
const Candidate<RmsNormBackwardArgs> kBackward[] = {
    simd_candidate<cpu::Avx512Bf16, RmsNormBackwardArgs>("avx512_bf16"),
    simd_candidate<cpu::Avx512, RmsNormBackwardArgs>("avx512"),
    simd_candidate<cpu::Avx2, RmsNormBackwardArgs>("avx2"),
    {"plain", nullptr, cpu::rms_norm_backward_plain, cpu::rms_norm_backward_plain_workspace}};
}  // namespace
const KernelList<RmsNormArgs> rms_norm_cpu = {"rms_norm", kForward};
const KernelList<RmsNormBackwardArgs> rms_norm_backward_cpu = {"rms_norm_backward", kBackward};
}  // namespace pmetal::ops
