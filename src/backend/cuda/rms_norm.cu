// rms_norm and its derivative. With x̂ = x · rstd and g = dy · (w + offset):
//   dx = rstd · (g − x̂ · mean(g · x̂)),  dw = Σ_rows dy · x̂
// A row belongs to half a warp, a warp (short rows) or one block, which keep it in registers unless it is very long. dw
// is summed over fixed chunks of rows, then over the chunks in order: same bits always. Bound: bytes.
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPack = 8;

__device__ __forceinline__ int64_t row_at(const RmsNormLaunch& a, int64_t row, int64_t stride, int64_t head_stride) {
  if (a.heads == 1) return row * stride;
  const uint32_t token = static_cast<uint32_t>(row) / static_cast<uint32_t>(a.heads);
  return token * stride + (row - token * a.heads) * head_stride;
}

// A row's threads: half a warp, a warp, or the whole block.
template <int kLanes>
__device__ __forceinline__ float group_sum(float v) {
  if constexpr (kLanes == 16) {
    const unsigned half = 0xffffu << (threadIdx.x & 16);
#pragma unroll
    for (int step = 8; step > 0; step /= 2) v += __shfl_xor_sync(half, v, step);
    return v;
  } else if constexpr (kLanes == 32) {
    return warp_sum(v);
  } else {
    return block_sum(v);
  }
}

// kPacks > 0: a thread keeps its part of the row, at most kPacks packs, in registers; else it reads the row twice.
template <class T, int kN, int kLanes, int kPacks>
__global__ void __launch_bounds__(kThreads) forward_kernel(RmsNormLaunch a) {
  const int64_t row = blockIdx.x * int64_t{kThreads / kLanes} + threadIdx.x / kLanes;
  if (row >= a.rows) return;
  const int lane = threadIdx.x % kLanes;
  constexpr int width = kLanes;
  const T* x = static_cast<const T*>(a.x) + row_at(a, row, a.x_stride, a.x_head_stride);
  const T* residual = a.residual ? static_cast<const T*>(a.residual) + row * a.residual_stride : nullptr;
  T* sum = a.residual ? static_cast<T*>(a.sum) + row * a.sum_stride : nullptr;
  T* y = static_cast<T*>(a.y) + row_at(a, row, a.y_stride, a.y_head_stride);
  float squares = 0;
  const auto first_pass = [&](int64_t c, float(&v)[kN]) {
    load_pack<kN>(x, c, v);
    if (residual) {
      float w[kN];
      load_pack<kN>(residual, c, w);
#pragma unroll
      for (int i = 0; i < kN; ++i) v[i] = round_through<T>(v[i] + w[i]);
      store_pack<kN>(sum, c, v);
    }
#pragma unroll
    for (int i = 0; i < kN; ++i) squares += v[i] * v[i];
  };
  const auto second_pass = [&](int64_t c, float(&v)[kN], float rstd) {
    float w[kN];
    load_any<kN>(a.weight, a.weight_dtype, c, w);
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      v[i] *= rstd;
      if (a.offset == 0) v[i] = round_through<T>(v[i]);
      v[i] *= w[i] + a.offset;
    }
    store_pack<kN>(y, c, v);
  };
  const auto scale_of = [&] { return 1.f / sqrtf(group_sum<kLanes>(squares) / static_cast<float>(a.n) + a.eps); };
  if constexpr (kPacks > 0) {
    float v[kPacks][kN];
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
      if ((p * width + lane) * kN < a.n) first_pass((p * width + lane) * kN, v[p]);
    const float rstd = scale_of();
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
      if ((p * width + lane) * kN < a.n) second_pass((p * width + lane) * kN, v[p], rstd);
  } else {
    float v[kN];
    for (int64_t c = lane * kN; c < a.n; c += width * kN) first_pass(c, v);
    const float rstd = scale_of();
    const T* source = residual ? sum : x;  // each thread reads back what it wrote itself
    for (int64_t c = lane * kN; c < a.n; c += width * kN) {
      load_pack<kN>(source, c, v);
      second_pass(c, v, rstd);
    }
  }
}

template <class T, int kN, int kLanes, int kPacks>
__global__ void __launch_bounds__(kThreads) backward_kernel(RmsNormLaunch a) {
  const int64_t row = blockIdx.x * int64_t{kThreads / kLanes} + threadIdx.x / kLanes;
  if (row >= a.rows) return;
  const int lane = threadIdx.x % kLanes;
  constexpr int width = kLanes;
  const T* x = static_cast<const T*>(a.x) + row_at(a, row, a.x_stride, a.x_head_stride);
  const T* dy = static_cast<const T*>(a.dy) + row_at(a, row, a.dy_stride, a.dy_head_stride);
  T* dx = a.dx ? static_cast<T*>(a.dx) + row_at(a, row, a.dx_stride, a.dx_head_stride) : nullptr;
  const T* more = a.dx_add ? static_cast<const T*>(a.dx_add) + row * a.dx_add_stride : nullptr;
  float squares = 0, product = 0;  // Σ x², Σ g·x
  // x, and g = dy · (w + offset)
  const auto read = [&](int64_t c, float(&v)[kN], float(&g)[kN]) {
    float w[kN];
    load_pack<kN>(x, c, v);
    load_pack<kN>(dy, c, g);
    load_any<kN>(a.weight, a.weight_dtype, c, w);
#pragma unroll
    for (int i = 0; i < kN; ++i) g[i] *= w[i] + a.offset;
  };
  const auto first_pass = [&](const float(&v)[kN], const float(&g)[kN]) {
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      squares += v[i] * v[i];
      product += g[i] * v[i];
    }
  };
  const auto second_pass = [&](int64_t c, float(&v)[kN], float(&g)[kN], float rstd, float mean) {
#pragma unroll
    for (int i = 0; i < kN; ++i) g[i] = rstd * (g[i] - v[i] * rstd * mean);
    if (more) {
      load_pack<kN>(more, c, v);
#pragma unroll
      for (int i = 0; i < kN; ++i) g[i] += v[i];
    }
    store_pack<kN>(dx, c, g);
  };
  const auto sums = [&](float& rstd, float& mean) {
    squares = group_sum<kLanes>(squares);
    product = group_sum<kLanes>(product);
    rstd = 1.f / sqrtf(squares / static_cast<float>(a.n) + a.eps);
    mean = product * rstd / static_cast<float>(a.n);
    if (a.rstd && lane == 0) a.rstd[row] = rstd;
  };
  float rstd, mean;
  if constexpr (kPacks > 0) {
    float v[kPacks][kN], g[kPacks][kN];
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
      if ((p * width + lane) * kN < a.n) {
        read((p * width + lane) * kN, v[p], g[p]);
        first_pass(v[p], g[p]);
      }
    sums(rstd, mean);
    if (!dx) return;
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
      if ((p * width + lane) * kN < a.n) second_pass((p * width + lane) * kN, v[p], g[p], rstd, mean);
  } else {
    float v[kN], g[kN];
    for (int64_t c = lane * kN; c < a.n; c += width * kN) {
      read(c, v, g);
      first_pass(v, g);
    }
    sums(rstd, mean);
    if (!dx) return;
    for (int64_t c = lane * kN; c < a.n; c += width * kN) {
      read(c, v, g);
      second_pass(c, v, g, rstd, mean);
    }
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

template <class T, int kN, int kLanes, int kPacks>
void run_rows(StreamHandle stream, const RmsNormLaunch& a, bool backward) {
  const unsigned blocks = blocks_for(a.rows, kThreads / kLanes);
  if (backward)
    backward_kernel<T, kN, kLanes, kPacks><<<blocks, kThreads, 0, stream>>>(a);
  else
    forward_kernel<T, kN, kLanes, kPacks><<<blocks, kThreads, 0, stream>>>(a);
}

template <class T, int kN>
void run(StreamHandle stream, const RmsNormLaunch& a, bool backward) {
  if constexpr (kN == 1) {
    a.n <= 512 ? run_rows<T, 1, 32, 0>(stream, a, backward) : run_rows<T, 1, kThreads, 0>(stream, a, backward);
  } else {
    constexpr int64_t kWarpPack = 32 * kN, kBlockPack = kThreads * kN;
    if (a.n <= kWarpPack / 2)
      run_rows<T, kN, 16, 1>(stream, a, backward);
    else if (a.n <= kWarpPack)
      run_rows<T, kN, 32, 1>(stream, a, backward);
    else if (a.n <= 4 * kWarpPack)
      run_rows<T, kN, 32, 4>(stream, a, backward);
    else if (a.n <= kBlockPack)
      run_rows<T, kN, kThreads, 1>(stream, a, backward);
    else if (a.n <= 4 * kBlockPack)
      run_rows<T, kN, kThreads, 4>(stream, a, backward);
    else
      run_rows<T, kN, kThreads, 0>(stream, a, backward);
  }
  if (!backward) return;
  if (!a.dweight) return;
  const int64_t chunks = (a.rows + a.chunk_rows - 1) / a.chunk_rows;
  const unsigned columns = blocks_for(a.n, kThreads);
  weight_partial_kernel<T><<<dim3(columns, static_cast<unsigned>(chunks)), kThreads, 0, stream>>>(a);
  weight_final_kernel<<<columns, kThreads, 0, stream>>>(a, chunks);
}

template <class T>
void run_packed(StreamHandle stream, const RmsNormLaunch& a, bool backward) {
  a.packed ? run<T, kPack>(stream, a, backward) : run<T, 1>(stream, a, backward);
}

}  // namespace

void launch_rms_norm(StreamHandle stream, const RmsNormLaunch& a, bool backward) {
  switch (a.dtype) {
    case DType::kBF16: return run_packed<bf16>(stream, a, backward);
    case DType::kF16: return run<f16, 1>(stream, a, backward);
    default: return run_packed<float>(stream, a, backward);
  }
}

}  // namespace pmetal::cuda
