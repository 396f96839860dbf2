// glu: y = act(gate) · up, or act(gate) alone, and the derivative. A thread takes eight neighbours where rows are
// aligned. Bound: bytes.
#include "backend/cuda/glu.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

template <class T, int kN>
__global__ void forward_kernel(GluLaunch a) {
  const int64_t per_row = a.n / kN, items = a.rows * per_row;
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < items; i += gridDim.x * int64_t{kThreads}) {
    const int64_t r = i / per_row, c = i % per_row * kN;
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

template <class T, int kN>
__global__ void backward_kernel(GluLaunch a) {
  const int64_t per_row = a.n / kN, items = a.rows * per_row;
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < items; i += gridDim.x * int64_t{kThreads}) {
    const int64_t r = i / per_row, c = i % per_row * kN;
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
  const unsigned blocks = blocks_for(a.rows * (a.n / kN), kThreads, 132 * 64);
  if (backward)
    backward_kernel<T, kN><<<blocks, kThreads, 0, stream>>>(a);
  else
    forward_kernel<T, kN><<<blocks, kThreads, 0, stream>>>(a);
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
