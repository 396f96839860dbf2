// top_logits: three passes over the rows, which lie in L2: the largest logit; a histogram of the distances to it, in
// bins of 1/64; the logits of the first bins that hold `want`, gathered in whatever order. Counts are whole numbers and
// the gathered set is what the bins say, so the result as a set is always the same.
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256, kBins = 2048;
constexpr float kBinsPerUnit = 64;

__device__ __forceinline__ int bin_of(float top, float z) {
  return static_cast<int>(fminf((top - z) * kBinsPerUnit, static_cast<float>(kBins - 1)));
}
__device__ __forceinline__ void slice_of(const TopLogitsLaunch& a, int64_t& begin, int64_t& end) {
  const int64_t step = (a.n + gridDim.x - 1) / gridDim.x;
  begin = blockIdx.x * step;
  end = min(begin + step, a.n);
}

// tops[row, slice]: the largest, or NaN where the slice holds NaN or +infinity; and clears what the others count in
__global__ void __launch_bounds__(kThreads) top_kernel(TopLogitsLaunch a) {
  const int64_t row = blockIdx.y;
  const float* z = a.logits + row * a.stride;
  int64_t begin, end;
  slice_of(a, begin, end);
  float top = -INFINITY, bad = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const float v = z[i];
    top = fmaxf(top, v);
    if (!(v < INFINITY)) bad = 1;
  }
  top = block_max(top);
  bad = block_max(bad);
  if (threadIdx.x == 0) a.tops[row * gridDim.x + blockIdx.x] = bad > 0 ? NAN : top;
  if (blockIdx.x == 0) {
    for (int i = threadIdx.x; i < kBins; i += kThreads) a.histogram[row * kBins + i] = 0;
    if (threadIdx.x == 0) a.out[row * a.out_stride] = 0;
  }
}

// the row's largest; NaN where any slice says so
__device__ float row_top(const TopLogitsLaunch& a) {
  float top = -INFINITY, bad = 0;
  for (int i = threadIdx.x; i < gridDim.x; i += kThreads) {
    const float v = a.tops[blockIdx.y * gridDim.x + i];
    top = fmaxf(top, v);
    if (v != v) bad = 1;
  }
  top = block_max(top);
  return block_max(bad) > 0 ? NAN : top;
}

__global__ void __launch_bounds__(kThreads) histogram_kernel(TopLogitsLaunch a) {
  __shared__ int counts[kBins];
  const float top = row_top(a);
  if (!(top > -INFINITY)) return;
  for (int i = threadIdx.x; i < kBins; i += kThreads) counts[i] = 0;
  __syncthreads();
  const float* z = a.logits + blockIdx.y * a.stride;
  int64_t begin, end;
  slice_of(a, begin, end);
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const int bin = bin_of(top, z[i]);
    if (bin < kBins - 1) atomicAdd(&counts[bin], 1);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kBins; i += kThreads)
    if (counts[i]) atomicAdd(&a.histogram[blockIdx.y * kBins + i], counts[i]);
}

__global__ void __launch_bounds__(kThreads) gather_kernel(TopLogitsLaunch a) {
  __shared__ int last_bin, sums[kThreads];
  int* out = a.out + blockIdx.y * a.out_stride;
  const float top = row_top(a);
  if (!(top > -INFINITY)) {
    if (blockIdx.x == 0 && threadIdx.x == 0) out[0] = -1;
    return;
  }
  // the bin in which the count reaches `want`: each thread sums eight bins, the first warp finds the eight
  const int* bins = a.histogram + blockIdx.y * kBins;
  constexpr int kEach = kBins / kThreads;
  int mine = 0;
  for (int i = 0; i < kEach; ++i) mine += bins[threadIdx.x * kEach + i];
  sums[threadIdx.x] = mine;
  if (threadIdx.x == 0) last_bin = kBins - 1;
  __syncthreads();
  if (threadIdx.x == 0) {
    int before = 0;
    for (int t = 0; t < kThreads; ++t) {
      if (before + sums[t] >= a.want) {
        int i = t * kEach;
        while (before + bins[i] < a.want) before += bins[i++];
        last_bin = i;
        break;
      }
      before += sums[t];
    }
  }
  __syncthreads();
  const int last = last_bin;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    out[1] = __float_as_int(top);
    out[2] = last;
  }
  const float* z = a.logits + blockIdx.y * a.stride;
  int64_t begin, end;
  slice_of(a, begin, end);
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const float v = z[i];
    if (bin_of(top, v) > last || v == -INFINITY) continue;
    const int at = atomicAdd(&out[0], 1);
    if (at >= a.capacity) continue;
    out[3 + at] = static_cast<int>(i);
    out[3 + a.capacity + at] = __float_as_int(v);
  }
}

}  // namespace

int64_t top_logits_workspace(int64_t rows) { return rows * (kBins + kMostSlices) * 4; }

void launch_top_logits(StreamHandle stream, const TopLogitsLaunch& a) {
  const unsigned slices =
      a.rows >= 256 ? 1 : static_cast<unsigned>(256 / a.rows < kMostSlices ? 256 / a.rows : kMostSlices);
  const dim3 grid(slices, static_cast<unsigned>(a.rows));
  top_kernel<<<grid, kThreads, 0, stream>>>(a);
  histogram_kernel<<<grid, kThreads, 0, stream>>>(a);
  gather_kernel<<<grid, kThreads, 0, stream>>>(a);
}

}  // namespace pmetal::cuda
