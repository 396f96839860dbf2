// glu, plain: y = act(gate) · up, or act(gate) alone.
#include "backend/cpu/glu.h"

#include "backend/cpu/plain.h"
#include "backend/cpu/simd_level.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::Activation;
using ops::GluArgs;

constexpr double kSqrtHalf = 0.70710678118654752440, kInvSqrt2Pi = 0.39894228040143267794;
constexpr double kSqrt2OverPi = 0.79788456080286535588, kGeluCubic = 0.044715, kQuick = 1.702;

template <class A>
A sigmoid(A x) {
  return A{1} / (A{1} + exp_of(-x));
}

// value[i] = f(x[i]) and, when slope is given, slope[i] = f'(x[i])
template <class A>
void evaluate(Activation activation, const A* x, A* value, A* slope, int64_t n) {
  A unused[kBlock];
  A* __restrict slopes = slope ? slope : unused;
  const auto each = [&](auto&& f) {
    for (int64_t i = 0; i < n; ++i) {
      A y, s;
      f(x[i], y, s);
      value[i] = y;
      slopes[i] = s;
    }
  };
  switch (activation) {
    case Activation::kSilu:
      return each([](A v, A& y, A& s) {
        const A p = sigmoid(v);
        y = v * p;
        s = p * (A{1} + v * (A{1} - p));
      });
    case Activation::kGelu:
      return each([](A v, A& y, A& s) {
        const A p = A{0.5} * (A{1} + std::erf(v * static_cast<A>(kSqrtHalf)));
        y = v * p;
        s = p + v * static_cast<A>(kInvSqrt2Pi) * exp_of(A{-0.5} * v * v);
      });
    case Activation::kGeluTanh:
      return each([](A v, A& y, A& s) {
        const A c = static_cast<A>(kSqrt2OverPi), k = static_cast<A>(kGeluCubic);
        const A t = std::tanh(c * (v + k * v * v * v));
        y = A{0.5} * v * (A{1} + t);
        s = A{0.5} * (A{1} + t) + A{0.5} * v * (A{1} - t * t) * c * (A{1} + 3 * k * v * v);
      });
    case Activation::kRelu:
      return each([](A v, A& y, A& s) {
        y = v > 0 || std::isnan(v) ? v : A{0};
        s = v > 0 ? A{1} : A{0};
      });
    case Activation::kRelu2:
      return each([](A v, A& y, A& s) {
        y = v > 0 || std::isnan(v) ? v * v : A{0};
        s = v > 0 ? 2 * v : A{0};
      });
    case Activation::kQuickGelu:
      return each([](A v, A& y, A& s) {
        const A k = static_cast<A>(kQuick), p = sigmoid(k * v);
        y = v * p;
        s = p * (A{1} + k * v * (A{1} - p));
      });
    case Activation::kIdentity:
      return each([](A v, A& y, A& s) {
        y = v;
        s = 1;
      });
  }
}

template <class A>
void forward(const GluArgs& args, const KernelContext& kernel) {
  const Rows gate(args.gate), up(args.up), y(args.y);
  for_blocks(kernel, gate.rows, gate.n, [&](int64_t r, int64_t c, int64_t n) {
    A a[kBlock], b[kBlock], v[kBlock];
    const A* g = read(args.gate, gate.offset(r) + c * gate.step, gate.step, n, a);
    evaluate<A>(args.activation, g, v, nullptr, n);
    if (args.up) {
      const A* u = read(args.up, up.offset(r) + c * up.step, up.step, n, b);
      for (int64_t i = 0; i < n; ++i) v[i] *= u[i];
    }
    store(args.y, y.offset(r) + c * y.step, y.step, n, v);
  });
}

template <class A>
void backward(const GluArgs& args, const KernelContext& kernel) {
  const Rows gate(args.gate), up(args.up), dy(args.dy), dgate(args.dgate), dup(args.dup);
  for_blocks(kernel, gate.rows, gate.n, [&](int64_t r, int64_t c, int64_t n) {
    A a[kBlock], b[kBlock], v[kBlock], s[kBlock], d[kBlock];
    const A* g = read(args.gate, gate.offset(r) + c * gate.step, gate.step, n, a);
    evaluate<A>(args.activation, g, v, s, n);
    const A* grad = read(args.dy, dy.offset(r) + c * dy.step, dy.step, n, d);
    if (args.dup) {
      for (int64_t i = 0; i < n; ++i) v[i] *= grad[i];
      store(args.dup, dup.offset(r) + c * dup.step, dup.step, n, v);
    }
    if (!args.dgate) return;
    for (int64_t i = 0; i < n; ++i) s[i] *= grad[i];
    if (args.up) {
      const A* u = read(args.up, up.offset(r) + c * up.step, up.step, n, b);
      for (int64_t i = 0; i < n; ++i) s[i] *= u[i];
    }
    store(args.dgate, dgate.offset(r) + c * dgate.step, dgate.step, n, s);
  });
}

}  // namespace

void glu_plain(const GluArgs& args, const KernelContext& kernel) {
  with_accumulator(args.gate.dtype, [&](auto zero) { forward<decltype(zero)>(args, kernel); });
}

void glu_backward_plain(const GluArgs& args, const KernelContext& kernel) {
  with_accumulator(args.gate.dtype, [&](auto zero) { backward<decltype(zero)>(args, kernel); });
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
using cpu::simd_backward_candidate;
using cpu::simd_candidate;
const Candidate<GluArgs> kForward[] = {simd_candidate<cpu::Avx512Bf16, GluArgs>("avx512_bf16"),
                                       simd_candidate<cpu::Avx512, GluArgs>("avx512"),
                                       simd_candidate<cpu::Avx2, GluArgs>("avx2"),
                                       {"plain", nullptr, cpu::glu_plain}};
const Candidate<GluArgs> kBackward[] = {simd_backward_candidate<cpu::Avx512Bf16, GluArgs>("avx512_bf16"),
                                        simd_backward_candidate<cpu::Avx512, GluArgs>("avx512"),
                                        simd_backward_candidate<cpu::Avx2, GluArgs>("avx2"),
                                        {"plain", nullptr, cpu::glu_backward_plain}};
}  // namespace
const KernelList<GluArgs> glu_cpu = {"glu", kForward};
const KernelList<GluArgs> glu_backward_cpu = {"glu_backward", kBackward};
}  // namespace pmetal::ops
