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
__global__ void binary_kernel(const __grid_constant__ View a, const __grid_constant__ View b,
                              const __grid_constant__ View y, int op, bool accumulate, int b_step, int64_t n) {
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

// The sum of gradients of a step: dense bf16, eight elements a load. y may be a or b.
__global__ void add_bf16_kernel(const uint4* a, const uint4* b, uint4* y, bool accumulate, int64_t n) {
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < n; i += gridDim.x * int64_t{kThreads}) {
    const uint4 p = a[i], q = b[i];
    uint4 r = accumulate ? y[i] : uint4{};
    const auto* x = reinterpret_cast<const __nv_bfloat162*>(&p);
    const auto* w = reinterpret_cast<const __nv_bfloat162*>(&q);
    auto* z = reinterpret_cast<__nv_bfloat162*>(&r);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 u = __bfloat1622float2(x[j]), v = __bfloat1622float2(w[j]), t = __bfloat1622float2(z[j]);
      z[j] = accumulate ? __floats2bfloat162_rn(u.x + v.x + t.x, u.y + v.y + t.y)
                        : __floats2bfloat162_rn(u.x + v.x, u.y + v.y);
    }
    y[i] = r;
  }
}

bool is_dense_bf16(const View& v) {
  return v.dtype == DType::kBF16 && v.rank == 1 && v.strides[0] == 1 && v.shape[0] % 8 == 0 &&
         reinterpret_cast<uintptr_t>(v.data) % 16 == 0;
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
  if (op == kAdd && is_dense_bf16(a) && is_dense_bf16(b) && is_dense_bf16(y)) {
    const int64_t n = y.numel() / 8;
    add_bf16_kernel<<<blocks_for(n, kThreads, 132 * 64), kThreads, 0, stream>>>(
        static_cast<const uint4*>(a.data), static_cast<const uint4*>(b.data), static_cast<uint4*>(y.data), accumulate,
        n);
    return;
  }
  wide ? run<double>(stream, a, b, y, op, accumulate, pack) : run<float>(stream, a, b, y, op, accumulate, pack);
}

}  // namespace pmetal::cuda
