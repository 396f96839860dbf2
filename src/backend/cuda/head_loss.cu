// The loss of rows of logits and its gradient, a block per row, in place (fused linear cross entropy as in Liger; the
// formulas stand in backend/cpu/head_loss.cc). One pass gathers maximum, sum and entropy (online softmax), a second
// writes the gradient. A narrowed gradient overwrites the front of its own row: a chunk is written after all threads
// have read it, and never reaches elements of a later chunk. Bound: bytes, 2 reads and 1 write of the row.
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 512;

struct Sums {
  float max, sum, weighted;  // Σ e^(x − max), Σ e^(x − max) · (x − max)
};
__device__ __forceinline__ Sums merged(const Sums& a, const Sums& b) {
  const float max = fmaxf(a.max, b.max);
  if (max == -INFINITY) return a;
  const float fa = a.max == -INFINITY ? 0.f : expf(a.max - max), fb = b.max == -INFINITY ? 0.f : expf(b.max - max);
  const float wa = a.max == -INFINITY ? 0.f : a.weighted + a.sum * (a.max - max);
  const float wb = b.max == -INFINITY ? 0.f : b.weighted + b.sum * (b.max - max);
  return {max, a.sum * fa + b.sum * fb, wa * fa + wb * fb};
}
__device__ __forceinline__ Sums warp_merged(Sums s) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const Sums other{__shfl_xor_sync(0xffffffffu, s.max, lanes), __shfl_xor_sync(0xffffffffu, s.sum, lanes),
                     __shfl_xor_sync(0xffffffffu, s.weighted, lanes)};
    s = (threadIdx.x & lanes) ? merged(other, s) : merged(s, other);  // both lanes merge in the same order
  }
  return s;
}
__device__ Sums block_merged(Sums s) {
  __shared__ Sums part[kThreads / 32];
  s = warp_merged(s);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = s;
  __syncthreads();
  Sums all = part[0];
  for (int w = 1; w < kThreads / 32; ++w) all = merged(all, part[w]);
  __syncthreads();
  return all;
}

template <int kN>
__global__ void __launch_bounds__(kThreads) row_loss_kernel(RowLossLaunch a) {
  const int64_t r = blockIdx.x, n = a.n;
  float* x = a.logits + r * n;
  const int64_t label = a.labels[r];
  const auto logit = [&](float raw) {
    raw *= a.logit_scale;
    return a.softcap > 0 ? a.softcap * tanhf(raw / a.softcap) : raw;
  };
  const float at_label = logit(x[label]);
  Sums sums{-INFINITY, 0, 0};
  float total = 0, better = 0;
  for (int64_t c = threadIdx.x * kN; c < n; c += kThreads * kN) {
    float v[kN];
    load_pack<kN>(x, c, v);
    float max = sums.max;
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      v[i] = logit(v[i]);
      max = fmaxf(max, v[i]);
      total += v[i];
      better += v[i] > at_label || (v[i] == at_label && c + i < label) ? 1.f : 0.f;
    }
    if (max == -INFINITY) continue;
    if (max > sums.max) sums = merged(sums, {max, 0, 0});
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      const float shifted = v[i] - sums.max, e = expf(shifted);
      sums.sum += e;
      sums.weighted += e > 0 ? e * shifted : 0.f;
    }
  }
  sums = block_merged(sums);
  better = block_sum(better);
  if (a.smoothing > 0) total = block_sum(total);
  const float log_sum = logf(sums.sum), lse = sums.max + log_sum;
  if (threadIdx.x == 0) {
    float loss = lse - at_label;
    if (a.smoothing > 0) loss = (1 - a.smoothing) * loss + a.smoothing * (lse - total / static_cast<float>(n));
    a.nll[r] = loss + a.z_loss * lse * lse;
    if (a.entropy) a.entropy[r] = log_sum - sums.weighted / sums.sum;
    if (a.correct) a.correct[r] = better == 0;
  }
  if (!a.gradient) return;
  const float p_scale = (1 + 2 * a.z_loss * lse) / sums.sum, even = a.smoothing / static_cast<float>(n);
  const float factor = a.row_scale[r] * a.logit_scale;
  bf16* narrow_row = reinterpret_cast<bf16*>(x);
  for (int64_t base = 0; base < n; base += kThreads * kN) {
    const int64_t c = base + threadIdx.x * kN;
    float v[kN];
    if (c < n) {
      load_pack<kN>(x, c, v);
#pragma unroll
      for (int i = 0; i < kN; ++i) {
        const float y = logit(v[i]), t = a.softcap > 0 ? y / a.softcap : 0.f;
        float g = expf(y - sums.max) * p_scale - even;
        if (c + i == label) g -= 1 - a.smoothing;
        v[i] = g * factor * (1 - t * t);
      }
    }
    __syncthreads();
    if (c < n) {
      if (a.narrows)
        store_pack<kN>(narrow_row, c, v);
      else
        store_pack<kN>(x, c, v);
    }
  }
}

}  // namespace

void launch_row_loss(StreamHandle stream, const RowLossLaunch& a) {
  const unsigned rows = static_cast<unsigned>(a.rows);
  if (a.n % 4 == 0)
    row_loss_kernel<4><<<rows, kThreads, 0, stream>>>(a);
  else
    row_loss_kernel<1><<<rows, kThreads, 0, stream>>>(a);
}

}  // namespace pmetal::cuda
