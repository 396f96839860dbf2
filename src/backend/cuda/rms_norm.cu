// rms_norm and its derivative. With x̂ = x · rstd and g = dy · (w + offset):
//   dx = rstd · (g − x̂ · mean(g · x̂)),  dw = Σ_rows dy · x̂
// Here for rows of any alignment and length: a row belongs to a warp (short ones) or a block, which reads it twice. dw
// is summed over fixed chunks of rows, then over the chunks in order: same bits always. Rows of packs:
// rms_norm_rows.cu.
#include "backend/cuda/device.cuh"
#include "backend/cuda/rms_norm_rows.h"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ int64_t row_at(const RmsNormLaunch& a, int64_t row, int64_t stride, int64_t head_stride) {
  if (a.heads == 1) return row * stride;
  const uint32_t token = static_cast<uint32_t>(row) / static_cast<uint32_t>(a.heads);
  return token * stride + (row - token * a.heads) * head_stride;
}

template <int kLanes>
__device__ __forceinline__ float row_sum(float v) {
  if constexpr (kLanes == 32) return warp_sum(v);
  return block_sum(v);
}

// kLanes: a warp or the whole block
template <class T, int kLanes>
__global__ void __launch_bounds__(kThreads) forward_kernel(RmsNormLaunch a) {
  const int64_t row = blockIdx.x * int64_t{kThreads / kLanes} + threadIdx.x / kLanes;
  if (row >= a.rows) return;
  const int lane = threadIdx.x % kLanes;
  const T* x = static_cast<const T*>(a.x) + row_at(a, row, a.x_stride, a.x_head_stride);
  const T* residual = a.residual ? static_cast<const T*>(a.residual) + row * a.residual_stride : nullptr;
  T* sum = a.residual ? static_cast<T*>(a.sum) + row * a.sum_stride : nullptr;
  T* y = static_cast<T*>(a.y) + row_at(a, row, a.y_stride, a.y_head_stride);
  float squares = 0;
  for (int64_t c = lane; c < a.n; c += kLanes) {
    float v = widen<float>(x[c]);
    if (residual) {
      v = round_through<T>(v + widen<float>(residual[c]));
      sum[c] = narrow<T>(v);
    }
    squares += v * v;
  }
  const float rstd = 1.f / sqrtf(row_sum<kLanes>(squares) / static_cast<float>(a.n) + a.eps);
  const T* source = residual ? sum : x;  // each thread reads back what it wrote itself
  for (int64_t c = lane; c < a.n; c += kLanes) {
    float v = widen<float>(source[c]) * rstd;
    if (a.offset == 0) v = round_through<T>(v);
    y[c] = narrow<T>(v * (load_one<float>(a.weight, a.weight_dtype, c) + a.offset));
  }
}

template <class T, int kLanes>
__global__ void __launch_bounds__(kThreads) backward_kernel(RmsNormLaunch a) {
  const int64_t row = blockIdx.x * int64_t{kThreads / kLanes} + threadIdx.x / kLanes;
  if (row >= a.rows) return;
  const int lane = threadIdx.x % kLanes;
  const T* x = static_cast<const T*>(a.x) + row_at(a, row, a.x_stride, a.x_head_stride);
  const T* dy = static_cast<const T*>(a.dy) + row_at(a, row, a.dy_stride, a.dy_head_stride);
  T* dx = a.dx ? static_cast<T*>(a.dx) + row_at(a, row, a.dx_stride, a.dx_head_stride) : nullptr;
  const T* more = a.dx_add ? static_cast<const T*>(a.dx_add) + row * a.dx_add_stride : nullptr;
  const auto weighted = [&](int64_t c) {
    return widen<float>(dy[c]) * (load_one<float>(a.weight, a.weight_dtype, c) + a.offset);
  };
  float squares = 0, product = 0;  // Σ x², Σ g·x
  for (int64_t c = lane; c < a.n; c += kLanes) {
    const float v = widen<float>(x[c]);
    squares += v * v;
    product += weighted(c) * v;
  }
  squares = row_sum<kLanes>(squares);
  product = row_sum<kLanes>(product);
  const float rstd = 1.f / sqrtf(squares / static_cast<float>(a.n) + a.eps);
  const float mean = product * rstd / static_cast<float>(a.n);
  if (a.rstd && lane == 0) a.rstd[row] = rstd;
  if (!dx) return;
  for (int64_t c = lane; c < a.n; c += kLanes) {
    float g = rstd * (weighted(c) - widen<float>(x[c]) * rstd * mean);
    if (more) g += widen<float>(more[c]);
    dx[c] = narrow<T>(g);
  }
}

// partial[chunk, c] = Σ over the chunk's rows of dy · x̂
template <class T>
__global__ void weight_partial_kernel(RmsNormLaunch a) {
  const int64_t c = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (c >= a.n) return;
  const int64_t first = blockIdx.y * a.chunk_rows, last = min(first + a.chunk_rows, a.rows);
  float sum = 0;
  for (int64_t r = first; r < last; ++r) {
    float v = widen<float>(static_cast<const T*>(a.x)[row_at(a, r, a.x_stride, a.x_head_stride) + c]) * a.rstd[r];
    if (a.offset == 0) v = round_through<T>(v);
    sum += widen<float>(static_cast<const T*>(a.dy)[row_at(a, r, a.dy_stride, a.dy_head_stride) + c]) * v;
  }
  a.partial[blockIdx.y * a.n + c] = sum;
}

__global__ void weight_final_kernel(RmsNormLaunch a, int64_t chunks) {
  const int64_t c = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (c >= a.n) return;
  float sum = 0;
  for (int64_t i = 0; i < chunks; ++i) sum += a.partial[i * a.n + c];
  a.dweight[c] += sum;
}

template <class T, int kLanes>
void run_rows(StreamHandle stream, const RmsNormLaunch& a, bool backward) {
  const unsigned blocks = blocks_for(a.rows, kThreads / kLanes);
  if (backward)
    backward_kernel<T, kLanes><<<blocks, kThreads, 0, stream>>>(a);
  else
    forward_kernel<T, kLanes><<<blocks, kThreads, 0, stream>>>(a);
}

template <class T>
void run(StreamHandle stream, const RmsNormLaunch& a, bool backward) {
  a.n <= 512 ? run_rows<T, 32>(stream, a, backward) : run_rows<T, kThreads>(stream, a, backward);
  if (!backward || !a.dweight) return;
  const int64_t chunks = (a.rows + a.chunk_rows - 1) / a.chunk_rows;
  const unsigned columns = blocks_for(a.n, kThreads);
  weight_partial_kernel<T><<<dim3(columns, static_cast<unsigned>(chunks)), kThreads, 0, stream>>>(a);
  weight_final_kernel<<<columns, kThreads, 0, stream>>>(a, chunks);
}

}  // namespace

void launch_rms_norm(StreamHandle stream, const RmsNormLaunch& a, bool backward) {
  if (a.packed && a.dtype != DType::kF16 && launch_rms_norm_rows(stream, a, backward)) return;
  switch (a.dtype) {
    case DType::kBF16: return run<bf16>(stream, a, backward);
    case DType::kF16: return run<f16>(stream, a, backward);
    default: return run<float>(stream, a, backward);
  }
}

}  // namespace pmetal::cuda
