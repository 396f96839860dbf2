// glu: y = act(gate) · up, or act(gate) alone, and the derivative. A thread takes eight neighbours where rows are
// aligned. Bound: bytes.
#include "backend/cuda/glu.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

template <class T, int kN, class Index>
__global__ void __launch_bounds__(kThreads) forward_kernel(GluLaunch a, Index items) {
  const Index per_row = static_cast<Index>(a.n / kN);
  for (Index i = blockIdx.x * Index{kThreads} + threadIdx.x; i < items; i += gridDim.x * Index{kThreads}) {
    const int64_t r = i / per_row, c = int64_t{i % per_row} * kN;
    float g[kN], u[kN];
    load_pack<kN>(static_cast<const T*>(a.gate), r * a.gate_stride + c, g);
    if (a.up) load_pack<kN>(static_cast<const T*>(a.up), r * a.up_stride + c, u);
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      float y, s;
      evaluate(a.activation, g[j], y, s);
      g[j] = a.up ? y * u[j] : y;
    }
    store_pack<kN>(static_cast<T*>(a.y), r * a.y_stride + c, g);
  }
}

template <class T, int kN, class Index>
__global__ void __launch_bounds__(kThreads) backward_kernel(GluLaunch a, Index items) {
  const Index per_row = static_cast<Index>(a.n / kN);
  for (Index i = blockIdx.x * Index{kThreads} + threadIdx.x; i < items; i += gridDim.x * Index{kThreads}) {
    const int64_t r = i / per_row, c = int64_t{i % per_row} * kN;
    float g[kN], u[kN], d[kN], dg[kN], du[kN];
    load_pack<kN>(static_cast<const T*>(a.gate), r * a.gate_stride + c, g);
    load_pack<kN>(static_cast<const T*>(a.dy), r * a.dy_stride + c, d);
    if (a.up) load_pack<kN>(static_cast<const T*>(a.up), r * a.up_stride + c, u);
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      float y, s;
      evaluate(a.activation, g[j], y, s);
      du[j] = y * d[j];
      dg[j] = s * d[j] * (a.up ? u[j] : 1.f);
    }
    if (a.dup) store_pack<kN>(static_cast<T*>(a.dup), r * a.dup_stride + c, du);
    if (a.dgate) store_pack<kN>(static_cast<T*>(a.dgate), r * a.dgate_stride + c, dg);
  }
}

template <class T, int kN>
void run(StreamHandle stream, const GluLaunch& a, bool backward) {
  const int64_t items = a.rows * (a.n / kN);
  const unsigned blocks = blocks_for(items, kThreads, 132 * 64);
  const auto launch = [&](auto index) {  // divisions of 32 bits where they suffice
    if (backward)
      backward_kernel<T, kN><<<blocks, kThreads, 0, stream>>>(a, index);
    else
      forward_kernel<T, kN><<<blocks, kThreads, 0, stream>>>(a, index);
  };
  items < (int64_t{1} << 31) ? launch(static_cast<uint32_t>(items)) : launch(items);
}

}  // namespace

void launch_glu(StreamHandle stream, const GluLaunch& a, bool backward) {
  if (a.dtype == DType::kBF16)
    a.packed ? run<bf16, 8>(stream, a, backward) : run<bf16, 1>(stream, a, backward);
  else if (a.dtype == DType::kF16)
    run<f16, 1>(stream, a, backward);
  else
    a.packed ? run<float, 4>(stream, a, backward) : run<float, 1>(stream, a, backward);
}

}  // namespace pmetal::cuda
