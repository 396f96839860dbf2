// rms_norm and its derivative (formulas: rms_norm.cu) over rows of packs of eight. A row belongs to half a warp, a
// warp, or a block of 64 to 256 threads, whichever leaves the fewest lanes idle; a thread asks for all it reads of a
// row before it computes and keeps it as it came. dw: a group of lanes adds up its rows, a block its groups, then the
// blocks are added in order: same bits always. Bound: bytes.
#include "backend/cuda/rms_norm_rows.h"

#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kPack = 8;
template <int kLanes>
constexpr int kThreadsOf = kLanes <= 32 ? 256 : kLanes;

template <class T>
using Eight = Pack<T, kPack>;

__device__ __forceinline__ int64_t row_at(const RmsNormLaunch& a, int64_t row, int64_t stride, int64_t head_stride) {
  if (a.heads == 1) return row * stride;
  const uint32_t token = static_cast<uint32_t>(row) / static_cast<uint32_t>(a.heads);
  return token * stride + (row - token * a.heads) * head_stride;
}

template <class T>
__device__ __forceinline__ Eight<T> eight_at(const void* data, int64_t at) {
  return *reinterpret_cast<const Eight<T>*>(static_cast<const T*>(data) + at);
}
__device__ __forceinline__ void put(void* data, int64_t at, const float (&v)[kPack], bf16) {
  struct alignas(16) {
    __nv_bfloat162 v[kPack / 2];
  } p;
#pragma unroll
  for (int i = 0; i < kPack / 2; ++i) p.v[i] = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
  *reinterpret_cast<decltype(p)*>(static_cast<bf16*>(data) + at) = p;
}
__device__ __forceinline__ void put(void* data, int64_t at, const float (&v)[kPack], float) {
  store_pack<kPack>(static_cast<float*>(data), at, v);
}
// both rounded to the type and back
__device__ __forceinline__ void round_pair(float& a, float& b, bf16) {
  const float2 r = __bfloat1622float2(__floats2bfloat162_rn(a, b));
  a = r.x, b = r.y;
}
__device__ __forceinline__ void round_pair(float&, float&, float) {}

// Sums over a row's lanes, in the same order for each of them.
template <int kLanes>
struct RowSum {
  float2* shared;  // [2, warps]: one half is read while the other is written
  int turn = 0;
  __device__ __forceinline__ float2 operator()(float2 v) {
    const unsigned lanes = kLanes == 16 ? 0xffffu << (threadIdx.x & 16) : 0xffffffffu;
#pragma unroll
    for (int step = kLanes < 32 ? kLanes / 2 : 16; step > 0; step /= 2) {
      v.x += __shfl_xor_sync(lanes, v.x, step);
      v.y += __shfl_xor_sync(lanes, v.y, step);
    }
    if constexpr (kLanes > 32) {
      constexpr int kWarps = kLanes / 32;
      float2* part = shared + turn * kWarps;
      turn ^= 1;
      if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
      __syncthreads();
      v = part[0];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) v.x += part[w].x, v.y += part[w].y;
    }
    return v;
  }
};

template <class T, int kLanes, int kPacks>
__global__ void __launch_bounds__(kThreadsOf<kLanes>) forward_kernel(RmsNormLaunch a) {
  __shared__ float2 sums[kLanes > 32 ? 2 * kLanes / 32 : 1];
  const int64_t row = blockIdx.x * int64_t{kThreadsOf<kLanes> / kLanes} + threadIdx.x / kLanes;
  if (row >= a.rows) return;
  const int lane = threadIdx.x % kLanes, n = static_cast<int>(a.n);
  const auto column = [&](int p) { return (p * kLanes + lane) * kPack; };
  const int64_t x_at = row_at(a, row, a.x_stride, a.x_head_stride), y_at = row_at(a, row, a.y_stride, a.y_head_stride);
  Eight<T> x[kPacks], more[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (column(p) < n) x[p] = eight_at<T>(a.x, x_at + column(p));
  if (a.residual) {
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
      if (column(p) < n) more[p] = eight_at<T>(a.residual, row * a.residual_stride + column(p));
  }
  float squares = 0;
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (column(p) < n) {
      float v[kPack];
#pragma unroll
      for (int i = 0; i < kPack; ++i) v[i] = widen<float>(x[p].v[i]);
      if (a.residual) {
#pragma unroll
        for (int i = 0; i < kPack; ++i) v[i] += widen<float>(more[p].v[i]);
#pragma unroll
        for (int i = 0; i < kPack; i += 2) {
          round_pair(v[i], v[i + 1], T());
          x[p].v[i] = narrow<T>(v[i]), x[p].v[i + 1] = narrow<T>(v[i + 1]);
        }
        *reinterpret_cast<Eight<T>*>(static_cast<T*>(a.sum) + row * a.sum_stride + column(p)) = x[p];
      }
#pragma unroll
      for (int i = 0; i < kPack; ++i) squares += v[i] * v[i];
    }
  RowSum<kLanes> sum{sums};
  const float rstd = 1.f / sqrtf(sum({squares, 0}).x / static_cast<float>(n) + a.eps);
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (column(p) < n) {
      float v[kPack], w[kPack];
      load_any<kPack>(a.weight, a.weight_dtype, column(p), w);
#pragma unroll
      for (int i = 0; i < kPack; ++i) v[i] = widen<float>(x[p].v[i]) * rstd;
      if (a.offset == 0) {
#pragma unroll
        for (int i = 0; i < kPack; i += 2) round_pair(v[i], v[i + 1], T());
      }
#pragma unroll
      for (int i = 0; i < kPack; ++i) v[i] *= w[i] + a.offset;
      put(a.y, y_at + column(p), v, T());
    }
}

template <class T, int kLanes, int kPacks, bool kWeight>
__global__ void __launch_bounds__(kThreadsOf<kLanes>, kThreadsOf<kLanes> == 256 && kPacks <= 4 ? 2 : 1)
    backward_kernel(RmsNormLaunch a) {
  constexpr int kRows = kThreadsOf<kLanes> / kLanes;  // at once
  __shared__ float2 sums[kLanes > 32 ? 2 * kLanes / 32 : 1];
  const int lane = threadIdx.x % kLanes, n = static_cast<int>(a.n);
  const auto column = [&](int p) { return (p * kLanes + lane) * kPack; };
  RowSum<kLanes> sum{sums};
  float dw[kWeight ? kPacks : 1][kPack] = {};
  for (int64_t row = blockIdx.x * int64_t{kRows} + threadIdx.x / kLanes; row < a.rows;
       row += gridDim.x * int64_t{kRows}) {
    const int64_t x_at = row_at(a, row, a.x_stride, a.x_head_stride),
                  dy_at = row_at(a, row, a.dy_stride, a.dy_head_stride),
                  dx_at = row_at(a, row, a.dx_stride, a.dx_head_stride);
    Eight<T> x[kPacks], dy[kPacks], more[kPacks];
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
      if (column(p) < n) {
        x[p] = eight_at<T>(a.x, x_at + column(p));
        dy[p] = eight_at<T>(a.dy, dy_at + column(p));
      }
    if (a.dx_add) {
#pragma unroll
      for (int p = 0; p < kPacks; ++p)
        if (column(p) < n) more[p] = eight_at<T>(a.dx_add, row * a.dx_add_stride + column(p));
    }
    float squares = 0, product = 0;  // Σ x², Σ g·x
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
      if (column(p) < n) {
        float w[kPack];
        load_any<kPack>(a.weight, a.weight_dtype, column(p), w);
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          const float v = widen<float>(x[p].v[i]);
          squares += v * v;
          product += widen<float>(dy[p].v[i]) * (w[i] + a.offset) * v;
        }
      }
    const float2 both = sum({squares, product});
    const float rstd = 1.f / sqrtf(both.x / static_cast<float>(n) + a.eps);
    const float by_x = rstd * rstd * (both.y * rstd / static_cast<float>(n));
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
      if (column(p) < n) {
        float w[kPack], g[kPack];
        load_any<kPack>(a.weight, a.weight_dtype, column(p), w);
#pragma unroll
        for (int i = 0; i < kPack; ++i)
          g[i] = rstd * (widen<float>(dy[p].v[i]) * (w[i] + a.offset)) - widen<float>(x[p].v[i]) * by_x;
        if constexpr (kWeight) {
#pragma unroll
          for (int i = 0; i < kPack; i += 2) {
            float u = widen<float>(x[p].v[i]) * rstd, v = widen<float>(x[p].v[i + 1]) * rstd;
            if (a.offset == 0) round_pair(u, v, T());
            dw[p][i] += widen<float>(dy[p].v[i]) * u;
            dw[p][i + 1] += widen<float>(dy[p].v[i + 1]) * v;
          }
        }
        if (!a.dx) continue;
        if (a.dx_add) {
#pragma unroll
          for (int i = 0; i < kPack; ++i) g[i] += widen<float>(more[p].v[i]);
        }
        put(a.dx, dx_at + column(p), g, T());
      }
  }
  if constexpr (kWeight) {
    float* to = a.partial + blockIdx.x * a.n;
    if constexpr (kRows == 1) {
#pragma unroll
      for (int p = 0; p < kPacks; ++p)
        if (column(p) < n) store_pack<kPack>(to, column(p), dw[p]);
    } else {
      __shared__ float part[kRows][kLanes * kPack];
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
#pragma unroll
        for (int i = 0; i < kPack; ++i) part[threadIdx.x / kLanes][lane * kPack + i] = dw[p][i];
        __syncthreads();
        for (int c = threadIdx.x; c < kLanes * kPack && p * kLanes * kPack + c < n; c += kThreadsOf<kLanes>) {
          float total = 0;
          for (int r = 0; r < kRows; ++r) total += part[r][c];
          to[p * kLanes * kPack + c] = total;
        }
        __syncthreads();
      }
    }
  }
}

// Eight parts of the blocks for 32 columns each, then the parts in order.
__global__ void __launch_bounds__(256) weight_kernel(RmsNormLaunch a, int blocks) {
  __shared__ float part[8][32];
  const int64_t c = blockIdx.x * int64_t{32} + threadIdx.x % 32;
  float total = 0;
  if (c < a.n)
    for (int b = threadIdx.x / 32; b < blocks; b += 8) total += a.partial[b * a.n + c];
  part[threadIdx.x / 32][threadIdx.x % 32] = total;
  __syncthreads();
  if (threadIdx.x >= 32 || c >= a.n) return;
  for (int i = 1; i < 8; ++i) total += part[i][threadIdx.x];
  a.dweight[c] += total;
}

template <class T, int kLanes, int kPacks>
void run(StreamHandle stream, const RmsNormLaunch& a, bool backward) {
  constexpr int kThreads = kThreadsOf<kLanes>, kRows = kThreads / kLanes;
  // with sums over rows: few blocks that walk; else one for each
  const unsigned blocks = blocks_for(a.rows, kRows, backward && a.dweight ? kNormChunks * 64 / kThreads : 1 << 30);
  if (!backward) {
    forward_kernel<T, kLanes, kPacks><<<blocks, kThreads, 0, stream>>>(a);
  } else if (!a.dweight) {
    backward_kernel<T, kLanes, kPacks, false><<<blocks, kThreads, 0, stream>>>(a);
  } else {
    backward_kernel<T, kLanes, kPacks, true><<<blocks, kThreads, 0, stream>>>(a);
    weight_kernel<<<blocks_for(a.n, 32), 256, 0, stream>>>(a, static_cast<int>(blocks));
  }
}

template <class T>
bool run_rows(StreamHandle stream, const RmsNormLaunch& a, bool backward) {
  const auto with = [&]<int kLanes, int kPacks>() { return run<T, kLanes, kPacks>(stream, a, backward), true; };
  const int64_t packs = a.n / kPack;
  if (packs <= 16) return with.template operator()<16, 1>();
  if (packs <= 32) return with.template operator()<32, 1>();
  if (packs <= 64) return with.template operator()<32, 2>();
  if (packs <= 96) return with.template operator()<32, 3>();
  if (packs <= 128) return with.template operator()<32, 4>();
  if (packs <= 192) return with.template operator()<64, 3>();
  if (packs <= 256) return with.template operator()<64, 4>();
  if (packs <= 320) return with.template operator()<64, 5>();
  if (packs <= 384) return with.template operator()<128, 3>();
  if (packs <= 512) return with.template operator()<128, 4>();
  if (packs <= 640) return with.template operator()<128, 5>();
  if (packs <= 768) return with.template operator()<256, 3>();
  if (packs <= 1024) return with.template operator()<256, 4>();
  if (packs <= 2048) return with.template operator()<256, 8>();
  return false;
}

}  // namespace

bool launch_rms_norm_rows(StreamHandle stream, const RmsNormLaunch& a, bool backward) {
  return a.dtype == DType::kBF16 ? run_rows<bf16>(stream, a, backward) : run_rows<float>(stream, a, backward);
}

}  // namespace pmetal::cuda
