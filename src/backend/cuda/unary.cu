// unary: one function per element, any strides and dtypes. Dimensions that lie together are merged by the launcher;
// where the innermost one is contiguous in all views a thread takes four elements. Bound: bytes.
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

template <class A>
__device__ A sigmoid(A x) {
  return A(1) / (A(1) + exp(-x));
}

template <class A>
__device__ A apply(int op, A x, A a, A b) {
  switch (op) {
    case kNeg: return -x;
    case kExp: return exp(x);
    case kLog: return log(x);
    case kSigmoid: return sigmoid(x);
    case kLogSigmoid: return (x < A(0) ? x : A(0)) - log1p(exp(-(x < A(0) ? -x : x)));
    case kTanh: return tanh(x);
    case kSqrt: return sqrt(x);
    case kSquare: return x * x;
    case kAbs: return x < A(0) ? -x : x;
    case kRelu: return x < A(0) ? A(0) : x;
    case kSilu: return x * sigmoid(x);
    case kGelu: return x * A(0.5) * (A(1) + erf(x * A(0.70710678118654752440)));
    case kReciprocal: return A(1) / x;
    case kAffine: return x * a + b;
    case kClamp: return x < a ? a : x > b ? b : x;
    default: return x;
  }
}

template <class A>
__device__ A slope(int op, A x, A a, A b) {
  switch (op) {
    case kNeg: return A(-1);
    case kExp: return exp(x);
    case kLog: return A(1) / x;
    case kSigmoid: return sigmoid(x) * sigmoid(-x);
    case kLogSigmoid: return sigmoid(-x);
    case kTanh: {
      const A y = tanh(x);
      return A(1) - y * y;
    }
    case kSqrt: return A(0.5) / sqrt(x);
    case kSquare: return 2 * x;
    case kAbs: return x > A(0) ? A(1) : x < A(0) ? A(-1) : x;
    case kRelu: return x > A(0) ? A(1) : A(0);
    case kSilu: {
      const A s = sigmoid(x);
      return s * (A(1) + x * (A(1) - s));
    }
    case kGelu:
      return A(0.5) * (A(1) + erf(x * A(0.70710678118654752440))) +
             x * A(0.39894228040143267794) * exp(A(-0.5) * x * x);
    case kReciprocal: return A(-1) / (x * x);
    case kAffine: return a;
    case kClamp: return x >= a && x <= b ? A(1) : A(0);
    default: return A(1);
  }
}

template <class A, int kN>
__global__ void unary_kernel(const __grid_constant__ View x, const __grid_constant__ View y, int op, A a, A b,
                             int64_t n) {
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < n; i += gridDim.x * int64_t{kThreads}) {
    A v[kN];
    if (op == kFill) {
#pragma unroll
      for (int j = 0; j < kN; ++j) v[j] = a;
    } else {
      load_any<kN>(x.data, x.dtype, offset_of(x, i * kN), v);
      if (op != kCopy)
#pragma unroll
        for (int j = 0; j < kN; ++j) v[j] = apply(op, v[j], a, b);
    }
    store_any<kN>(y.data, y.dtype, offset_of(y, i * kN), v);
  }
}

template <class A, int kN>
__global__ void unary_backward_kernel(const __grid_constant__ View x, const __grid_constant__ View dy,
                                      const __grid_constant__ View dx, int op, A a, A b, int64_t n) {
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < n; i += gridDim.x * int64_t{kThreads}) {
    A v[kN], g[kN];
    load_any<kN>(x.data, x.dtype, offset_of(x, i * kN), v);
    load_any<kN>(dy.data, dy.dtype, offset_of(dy, i * kN), g);
#pragma unroll
    for (int j = 0; j < kN; ++j) v[j] = slope(op, v[j], a, b) * g[j];
    store_any<kN>(dx.data, dx.dtype, offset_of(dx, i * kN), v);
  }
}

template <class A>
void forward(StreamHandle stream, const View& x, const View& y, int op, double a, double b, int pack) {
  const int64_t n = y.numel() / pack;
  const unsigned blocks = blocks_for(n, kThreads, 132 * 64);
  if (pack == 4)
    unary_kernel<A, 4><<<blocks, kThreads, 0, stream>>>(x, y, op, static_cast<A>(a), static_cast<A>(b), n);
  else
    unary_kernel<A, 1><<<blocks, kThreads, 0, stream>>>(x, y, op, static_cast<A>(a), static_cast<A>(b), n);
}

template <class A>
void backward(StreamHandle stream, const View& x, const View& dy, const View& dx, int op, double a, double b,
              int pack) {
  const int64_t n = dx.numel() / pack;
  const unsigned blocks = blocks_for(n, kThreads, 132 * 64);
  if (pack == 4)
    unary_backward_kernel<A, 4>
        <<<blocks, kThreads, 0, stream>>>(x, dy, dx, op, static_cast<A>(a), static_cast<A>(b), n);
  else
    unary_backward_kernel<A, 1>
        <<<blocks, kThreads, 0, stream>>>(x, dy, dx, op, static_cast<A>(a), static_cast<A>(b), n);
}

}  // namespace

void launch_unary(StreamHandle stream, const View& x, const View& y, int op, double a, double b, bool wide, int pack) {
  wide ? forward<double>(stream, x, y, op, a, b, pack) : forward<float>(stream, x, y, op, a, b, pack);
}

void launch_unary_backward(StreamHandle stream, const View& x, const View& dy, const View& dx, int op, double a,
                           double b, bool wide, int pack) {
  wide ? backward<double>(stream, x, dy, dx, op, a, b, pack) : backward<float>(stream, x, dy, dx, op, a, b, pack);
}

}  // namespace pmetal::cuda
