// unary, plain: one function per element, any strides and dtypes.
#include "backend/cpu/elementwise.h"
#include "backend/cpu/plain.h"
#include "backend/cpu/simd_level.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::Unary;
using ops::UnaryArgs;

constexpr double kSqrtHalf = 0.70710678118654752440, kInvSqrt2Pi = 0.39894228040143267794;

template <class A, class F>
void each(A* v, int64_t n, F&& f) {
  for (int64_t i = 0; i < n; ++i) v[i] = f(v[i]);
}

template <class A>
A sigmoid(A x) {
  return A{1} / (A{1} + std::exp(-x));
}

template <class A>
void apply(const UnaryArgs& args, A* v, int64_t n) {
  const A a = static_cast<A>(args.a), b = static_cast<A>(args.b);
  switch (args.op) {
    case static_cast<int>(Unary::kNeg): return each(v, n, [](A x) { return -x; });
    case static_cast<int>(Unary::kExp): return each(v, n, [](A x) { return std::exp(x); });
    case static_cast<int>(Unary::kLog): return each(v, n, [](A x) { return std::log(x); });
    case static_cast<int>(Unary::kSigmoid): return each(v, n, sigmoid<A>);
    case static_cast<int>(Unary::kLogSigmoid):
      return each(v, n, [](A x) { return std::min(x, A{0}) - std::log1p(std::exp(-std::abs(x))); });
    case static_cast<int>(Unary::kTanh): return each(v, n, [](A x) { return std::tanh(x); });
    case static_cast<int>(Unary::kSqrt): return each(v, n, [](A x) { return std::sqrt(x); });
    case static_cast<int>(Unary::kSquare): return each(v, n, [](A x) { return x * x; });
    case static_cast<int>(Unary::kAbs): return each(v, n, [](A x) { return std::abs(x); });
    case static_cast<int>(Unary::kRelu): return each(v, n, [](A x) { return x < 0 ? A{0} : x; });
    case static_cast<int>(Unary::kSilu): return each(v, n, [](A x) { return x * sigmoid(x); });
    case static_cast<int>(Unary::kGelu):
      return each(v, n, [](A x) { return x * A{0.5} * (A{1} + std::erf(x * static_cast<A>(kSqrtHalf))); });
    case static_cast<int>(Unary::kReciprocal): return each(v, n, [](A x) { return A{1} / x; });
    case ops::kUnaryAffine: return each(v, n, [a, b](A x) { return x * a + b; });
    case ops::kUnaryClamp: return each(v, n, [a, b](A x) { return x < a ? a : x > b ? b : x; });
    case ops::kUnaryCopy: return;
    default: PMETAL_ASSERT(false, "unary code {}", args.op);
  }
}

template <class A>
void slope(const UnaryArgs& args, A* v, int64_t n) {
  const A a = static_cast<A>(args.a), b = static_cast<A>(args.b);
  switch (args.op) {
    case static_cast<int>(Unary::kNeg): return each(v, n, [](A) { return A{-1}; });
    case static_cast<int>(Unary::kExp): return each(v, n, [](A x) { return std::exp(x); });
    case static_cast<int>(Unary::kLog): return each(v, n, [](A x) { return A{1} / x; });
    case static_cast<int>(Unary::kSigmoid): return each(v, n, [](A x) { return sigmoid(x) * sigmoid(-x); });
    case static_cast<int>(Unary::kLogSigmoid): return each(v, n, [](A x) { return sigmoid(-x); });
    case static_cast<int>(Unary::kTanh):
      return each(v, n, [](A x) {
        const A y = std::tanh(x);
        return A{1} - y * y;
      });
    case static_cast<int>(Unary::kSqrt): return each(v, n, [](A x) { return A{0.5} / std::sqrt(x); });
    case static_cast<int>(Unary::kSquare): return each(v, n, [](A x) { return 2 * x; });
    case static_cast<int>(Unary::kAbs): return each(v, n, [](A x) { return x > 0 ? A{1} : x < 0 ? A{-1} : x; });
    case static_cast<int>(Unary::kRelu): return each(v, n, [](A x) { return x > 0 ? A{1} : A{0}; });
    case static_cast<int>(Unary::kSilu):
      return each(v, n, [](A x) {
        const A s = sigmoid(x);
        return s * (A{1} + x * (A{1} - s));
      });
    case static_cast<int>(Unary::kGelu):
      return each(v, n, [](A x) {
        return A{0.5} * (A{1} + std::erf(x * static_cast<A>(kSqrtHalf))) +
               x * static_cast<A>(kInvSqrt2Pi) * std::exp(A{-0.5} * x * x);
      });
    case static_cast<int>(Unary::kReciprocal): return each(v, n, [](A x) { return A{-1} / (x * x); });
    case ops::kUnaryAffine: return each(v, n, [a](A) { return a; });
    case ops::kUnaryClamp: return each(v, n, [a, b](A x) { return x >= a && x <= b ? A{1} : A{0}; });
    case ops::kUnaryCopy: return each(v, n, [](A) { return A{1}; });
    default: PMETAL_ASSERT(false, "unary code {} has no derivative", args.op);
  }
}

template <class A>
void forward(const UnaryArgs& given, const KernelContext& kernel) {
  UnaryArgs args = given;
  const bool fill = args.op == ops::kUnaryFill;
  if (is_contiguous(args.y) && (fill || is_contiguous(args.x))) {
    args.y = flattened(args.y);
    if (!fill) args.x = flattened(args.x);
  }
  const Rows x(fill ? args.y : args.x), y(args.y);
  for_blocks(kernel, y.rows, y.n, [&](int64_t r, int64_t c, int64_t n) {
    A v[kBlock];
    if (fill) {
      std::fill(v, v + n, static_cast<A>(static_cast<double>(args.a) + static_cast<double>(args.b)));
    } else {
      load(args.x, x.offset(r) + c * x.step, x.step, n, v);
      apply(args, v, n);
    }
    store(args.y, y.offset(r) + c * y.step, y.step, n, v);
  });
}

template <class A>
void backward(const UnaryArgs& args, const KernelContext& kernel) {
  const Rows x(args.x), dy(args.dy), dx(args.dx);
  for_blocks(kernel, dx.rows, dx.n, [&](int64_t r, int64_t c, int64_t n) {
    A v[kBlock], d[kBlock];
    load(args.x, x.offset(r) + c * x.step, x.step, n, v);
    slope(args, v, n);
    const A* g = read(args.dy, dy.offset(r) + c * dy.step, dy.step, n, d);
    for (int64_t i = 0; i < n; ++i) v[i] *= g[i];
    store(args.dx, dx.offset(r) + c * dx.step, dx.step, n, v);
  });
}

// integers pass through f64, which holds every i32 and all ids that occur
bool wide(DType dtype) { return is_double(dtype) || !is_floating(dtype); }

}  // namespace

void unary_plain(const UnaryArgs& args, const KernelContext& kernel) {
  const bool f64 = wide(args.y.dtype) || (args.op != ops::kUnaryFill && wide(args.x.dtype));
  with_accumulator(f64 ? DType::kF64 : DType::kF32, [&](auto zero) { forward<decltype(zero)>(args, kernel); });
}

void unary_backward_plain(const UnaryArgs& args, const KernelContext& kernel) {
  with_accumulator(args.dx.dtype, [&](auto zero) { backward<decltype(zero)>(args, kernel); });
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
using cpu::simd_candidate;
const Candidate<UnaryArgs> kForward[] = {simd_candidate<cpu::Avx512Bf16, UnaryArgs>("avx512_bf16"),
                                         simd_candidate<cpu::Avx512, UnaryArgs>("avx512"),
                                         simd_candidate<cpu::Avx2, UnaryArgs>("avx2"),
                                         {"plain", nullptr, cpu::unary_plain}};
const Candidate<UnaryArgs> kBackward[] = {{"plain", nullptr, cpu::unary_backward_plain}};
}  // namespace
const KernelList<UnaryArgs> unary_cpu = {"unary", kForward};
const KernelList<UnaryArgs> unary_backward_cpu = {"unary_backward", kBackward};
}  // namespace pmetal::ops
