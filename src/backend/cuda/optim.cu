// adamw over a flat group in one launch, and the sum of squares in f64 over fixed blocks of 4096 elements, the blocks
// then added in a fixed order: same bits always.
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void adamw_kernel(AdamWLaunch a) {
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < a.n; i += gridDim.x * int64_t{kThreads}) {
    const float gradient = a.grad[i] * a.grad_scale;
    const float m = a.beta1 * a.m[i] + a.c1 * gradient;
    const float v = a.beta2 * a.v[i] + a.c2 * gradient * gradient;
    const float w = a.master[i] * a.decay - a.step_size * m / (sqrtf(v) * a.root_scale + a.eps);
    a.m[i] = m;
    a.v[i] = v;
    a.master[i] = w;
    if (a.weight) store_one(a.weight, a.weight_dtype, i, w);
  }
}

__global__ void squares_kernel(View x, double* partial, int64_t n) {
  const int64_t first = blockIdx.x * kSumBlock;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < kSumBlock && first + i < n; i += kThreads) {
    const double v = load_one<double>(x.data, x.dtype, first + i);
    sum += v * v;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void total_kernel(const double* partial, int64_t n, double* out) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *out = sum;
}

}  // namespace

void launch_adamw(StreamHandle stream, const AdamWLaunch& a) {
  adamw_kernel<<<blocks_for(a.n, kThreads, 132 * 32), kThreads, 0, stream>>>(a);
}

void launch_sum_squares(StreamHandle stream, const View& x, double* partial, double* out) {
  const int64_t n = x.numel(), blocks = (n + kSumBlock - 1) / kSumBlock;
  if (blocks) squares_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(x, partial, n);
  total_kernel<<<1, kThreads, 0, stream>>>(partial, blocks, out);
}

}  // namespace pmetal::cuda
