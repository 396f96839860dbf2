// glu: y = act(gate) · up, or act(gate) alone, and the derivative. A thread takes eight neighbours where rows are
// aligned. Bound: bytes.
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

// value and derivative of the activation
__device__ __forceinline__ void evaluate(int activation, float v, float& y, float& s) {
  switch (activation) {
    case kActSilu: {
      const float p = sigmoid(v);
      y = v * p;
      s = p * (1.f + v * (1.f - p));
      return;
    }
    case kActGelu: {
      const float p = 0.5f * (1.f + erff(v * 0.70710678118654752440f));
      y = v * p;
      s = p + v * 0.39894228040143267794f * expf(-0.5f * v * v);
      return;
    }
    case kActGeluTanh: {
      const float c = 0.79788456080286535588f, k = 0.044715f;
      const float t = tanhf(c * (v + k * v * v * v));
      y = 0.5f * v * (1.f + t);
      s = 0.5f * (1.f + t) + 0.5f * v * (1.f - t * t) * c * (1.f + 3 * k * v * v);
      return;
    }
    case kActRelu:
      y = v > 0 || v != v ? v : 0.f;
      s = v > 0 ? 1.f : 0.f;
      return;
    case kActRelu2:
      y = v > 0 || v != v ? v * v : 0.f;
      s = v > 0 ? 2 * v : 0.f;
      return;
    case kActQuickGelu: {
      const float k = 1.702f, p = sigmoid(k * v);
      y = v * p;
      s = p * (1.f + k * v * (1.f - p));
      return;
    }
    default: y = v, s = 1.f;
  }
}

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
