// Products of a few rows with a bf16 weight: y[m, n] = x[m, k] · w[n, k]ᵀ, m <= 8. Bound: the bytes of w, read once. A
// warp owns kOutputs rows of w and walks them in 16-byte loads, four of each in flight; x comes from cache. The sum
// over k has a fixed order: same bits always, and for every m that the same instance serves.
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256, kUnroll = 4;

__device__ __forceinline__ uint4 load_stream(const bf16* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
__device__ __forceinline__ float dot8(const uint4& a, const uint4& b, float sum) {
  const uint32_t u[4] = {a.x, a.y, a.z, a.w}, v[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum = fmaf(__uint_as_float(u[i] << 16), __uint_as_float(v[i] << 16), sum);
    sum = fmaf(__uint_as_float(u[i] & 0xffff0000u), __uint_as_float(v[i] & 0xffff0000u), sum);
  }
  return sum;
}

template <int kM, int kOutputs>
__global__ void __launch_bounds__(kThreads) gemv_kernel(GemvLaunch a) {
  const int lane = threadIdx.x % 32;
  const int64_t first = (blockIdx.x * int64_t{kThreads / 32} + threadIdx.x / 32) * kOutputs;
  if (first >= a.n) return;
  const bf16* x = static_cast<const bf16*>(a.x);
  const bf16* w = static_cast<const bf16*>(a.w);
  float sums[kM][kOutputs];
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) sums[m][o] = 0;
  for (int64_t base = lane * 8; base < a.k; base += 256 * kUnroll) {
    uint4 rows[kUnroll][kOutputs];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
#pragma unroll
      for (int o = 0; o < kOutputs; ++o) {
        const int64_t c = base + u * 256, n = first + o < a.n ? first + o : a.n - 1;
        rows[u][o] = c < a.k ? load_stream(w + n * a.w_stride + c) : make_uint4(0, 0, 0, 0);
      }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t c = base + u * 256;
      if (c >= a.k) break;
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        if (m >= a.m) break;
        const uint4 v = *reinterpret_cast<const uint4*>(x + m * a.x_stride + c);
#pragma unroll
        for (int o = 0; o < kOutputs; ++o) sums[m][o] = dot8(rows[u][o], v, sums[m][o]);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    if (m >= a.m) break;
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) {
      float sum = warp_sum(sums[m][o]);
      const int64_t n = first + o;
      if (lane != 0 || n >= a.n) continue;
      if (a.bias) sum += load_one<float>(a.bias, a.bias_dtype, n);
      const int64_t at = m * a.y_stride + n;
      if (a.accumulate) sum += load_one<float>(a.y, a.y_dtype, at);
      store_one(a.y, a.y_dtype, at, sum);
    }
  }
}

template <int kM, int kOutputs>
void run(StreamHandle stream, const GemvLaunch& a) {
  gemv_kernel<kM, kOutputs><<<blocks_for(a.n, kThreads / 32 * kOutputs), kThreads, 0, stream>>>(a);
}

template <int kM>
void run_outputs(StreamHandle stream, const GemvLaunch& a) {
  a.n >= 8192 ? run<kM, 2>(stream, a) : run<kM, 1>(stream, a);  // short outputs need the warps
}

}  // namespace

void launch_gemv(StreamHandle stream, const GemvLaunch& a) {
  if (a.m == 1)
    run_outputs<1>(stream, a);
  else if (a.m == 2)
    run_outputs<2>(stream, a);
  else if (a.m <= 4)
    run_outputs<4>(stream, a);
  else
    run_outputs<8>(stream, a);
}

}  // namespace pmetal::cuda
