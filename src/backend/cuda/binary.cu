// binary: two operands per element; a broadcast operand comes as a view with strides of 0. Bound: bytes.
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

template <class A>
__device__ A apply(int op, A a, A b) {
  switch (op) {
    case kAdd: return a + b;
    case kSub: return a - b;
    case kMul: return a * b;
    case kDiv: return a / b;
    case kMin: return a != a ? a : a < b ? a : b;
    case kMax: return a != a ? a : a > b ? a : b;
    default: return a < b ? A(1) : a == b ? A(0.5) : A(0);
  }
}

// b_step 0: all elements of a pack meet one element of b
template <class A, int kN>
__global__ void binary_kernel(View a, View b, View y, int op, bool accumulate, int b_step, int64_t n) {
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < n; i += gridDim.x * int64_t{kThreads}) {
    A v[kN], w[kN];
    load_any<kN>(a.data, a.dtype, offset_of(a, i * kN), v);
    if (b_step == 0) {
      const A one = load_one<A>(b.data, b.dtype, offset_of(b, i * kN));
#pragma unroll
      for (int j = 0; j < kN; ++j) w[j] = one;
    } else {
      load_any<kN>(b.data, b.dtype, offset_of(b, i * kN), w);
    }
#pragma unroll
    for (int j = 0; j < kN; ++j) v[j] = apply(op, v[j], w[j]);
    const int64_t to = offset_of(y, i * kN);
    if (accumulate) {
      load_any<kN>(y.data, y.dtype, to, w);
#pragma unroll
      for (int j = 0; j < kN; ++j) v[j] += w[j];
    }
    store_any<kN>(y.data, y.dtype, to, v);
  }
}

template <class A>
void run(StreamHandle stream, const View& a, const View& b, const View& y, int op, bool accumulate, int pack) {
  const int64_t n = y.numel() / pack;
  const unsigned blocks = blocks_for(n, kThreads, 132 * 64);
  const int b_step = pack > 1 && b.strides[b.rank - 1] == 0 ? 0 : 1;
  if (pack == 4)
    binary_kernel<A, 4><<<blocks, kThreads, 0, stream>>>(a, b, y, op, accumulate, b_step, n);
  else
    binary_kernel<A, 1><<<blocks, kThreads, 0, stream>>>(a, b, y, op, accumulate, b_step, n);
}

}  // namespace

void launch_binary(StreamHandle stream, const View& a, const View& b, const View& y, int op, bool accumulate, bool wide,
                   int pack) {
  wide ? run<double>(stream, a, b, y, op, accumulate, pack) : run<float>(stream, a, b, y, op, accumulate, pack);
}

}  // namespace pmetal::cuda
