// adamw over a flat group in one launch, and the sum of squares in f64 over fixed blocks of 4096 elements, the blocks
// then added in a fixed order: same bits always. A decided step reads its clipping factor and its number from the
// device.
#include "backend/cuda/optim.h"

#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ void update(const AdamWLaunch& a, float grad_scale, float step_size, float root_scale) {
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < a.n; i += gridDim.x * int64_t{kThreads}) {
    const float gradient = a.grad[i] * grad_scale;
    const float m = a.beta1 * a.m[i] + a.c1 * gradient;
    const float v = a.beta2 * a.v[i] + a.c2 * gradient * gradient;
    const float w = a.master[i] * a.decay - step_size * m / (sqrtf(v) * root_scale + a.eps);
    a.m[i] = m;
    a.v[i] = v;
    a.master[i] = w;
    if (a.weight) store_one(a.weight, a.weight_dtype, i, w);
  }
}

__global__ void adamw_kernel(AdamWLaunch a) { update(a, a.grad_scale, a.step_size, a.root_scale); }

__global__ void decided_adamw_kernel(AdamWLaunch a, double lr, double beta1, double beta2, const double* decision) {
  if (decision[1] == 0) return;
  __shared__ float step_size, root_scale;
  if (threadIdx.x == 0) {
    step_size = static_cast<float>(lr / (1 - pow(beta1, decision[0])));
    root_scale = static_cast<float>(1 / sqrt(1 - pow(beta2, decision[0])));
  }
  __syncthreads();
  update(a, static_cast<float>(decision[3]), step_size, root_scale);
}

__global__ void decision_kernel(const double* squares, const float* loss, double max_norm, double* decision) {
  const double norm = sqrt(*squares);
  const bool passes = isfinite(norm) && isfinite(*loss);
  decision[0] += passes ? 1 : 0;
  decision[1] = passes ? 1 : 0;
  decision[2] = norm;
  decision[3] = max_norm > 0 ? fmin(1.0, max_norm / (norm + 1e-6)) : 1;
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

void launch_decided_adamw(StreamHandle stream, const AdamWLaunch& a, double lr, double beta1, double beta2,
                          const double* decision) {
  decided_adamw_kernel<<<blocks_for(a.n, kThreads, 132 * 32), kThreads, 0, stream>>>(a, lr, beta1, beta2, decision);
}

void launch_step_decision(StreamHandle stream, const double* squares, const float* loss, double max_norm,
                          double* decision) {
  decision_kernel<<<1, 1, 0, stream>>>(squares, loss, max_norm, decision);
}

void launch_sum_squares(StreamHandle stream, const View& x, double* partial, double* out) {
  const int64_t n = x.numel(), blocks = (n + kSumBlock - 1) / kSumBlock;
  if (blocks) squares_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(x, partial, n);
  total_kernel<<<1, kThreads, 0, stream>>>(partial, blocks, out);
}

}  // namespace pmetal::cuda
