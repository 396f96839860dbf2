// The loss of rows of logits and its gradient as in head_loss.cu, a cluster of blocks per row, on Hopper. Between them
// the blocks keep the row in registers: it is read once, where one block for a row reads it twice. Each block sums with
// its own maximum; the sums meet in shared memory and every block adds them in the order of the blocks: same bits
// always. The narrowed gradient overwrites the front of the row, which by then all blocks have read. Bound: bytes, a
// read and half a write of the row.
#include "backend/cuda/head_loss_sm90.h"

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 512, kPacks = 10, kPack = 4;  // a thread's part of the row
constexpr int kMostBlocks = 8;
constexpr int64_t kBlockColumns = int64_t{kThreads} * kPacks * kPack;

struct Sums {
  float max, sum, weighted, total;  // Σ e^(x − max), Σ e^(x − max) · (x − max), Σ x
  int ties;                         // columns before the label's that have its value
};

// kPlain: logits as they are, no smoothing
template <int kBlocks, bool kPlain>
__global__ void __launch_bounds__(kThreads, 2) row_loss_cluster_kernel(RowLossLaunch a) {
#if __CUDA_ARCH__ >= 900
  namespace cg = cooperative_groups;
  const cg::cluster_group cluster = cg::this_cluster();
  __shared__ Sums own;
  const int rank = kBlocks > 1 ? static_cast<int>(cluster.block_rank()) : 0;
  const int64_t r = blockIdx.x / kBlocks;
  const int n = static_cast<int>(a.n);
  float* x = a.logits + r * a.n;
  const int label = a.labels[r];
  const auto logit = [&](float raw) {
    if (kPlain) return raw;
    raw *= a.logit_scale;
    return a.softcap > 0 ? a.softcap * tanhf(raw / a.softcap) : raw;
  };
  const auto column = [&](int p) { return ((p * kBlocks + rank) * kThreads + static_cast<int>(threadIdx.x)) * kPack; };
  const float at_label = logit(x[label]);
  float v[kPacks][kPack];
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (column(p) < n) load_pack<kPack>(x, column(p), v[p]);
  float max = -INFINITY, total = 0;
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (column(p) < n) {
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        v[p][i] = logit(v[p][i]);
        max = fmaxf(max, v[p][i]);
        if (!kPlain) total += v[p][i];
      }
    }
  Sums s{block_max(max), 0, 0, 0, 0};
  if (s.max == at_label) {  // only then may the label be the first of the largest
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
      if (column(p) < n) {
#pragma unroll
        for (int i = 0; i < kPack; ++i) s.ties += v[p][i] == at_label && column(p) + i < label ? 1 : 0;
      }
    s.ties = block_sum(s.ties);
  }
  // v becomes e^(v − max)
  if (s.max != -INFINITY) {
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
      if (column(p) < n) {
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          const float shifted = v[p][i] - s.max, e = __expf(shifted);
          s.sum += e;
          s.weighted += e > 0 ? e * shifted : 0.f;
          if (kPlain) v[p][i] = e;
        }
      }
  }
  s.sum = block_sum(s.sum);
  s.weighted = block_sum(s.weighted);
  if (!kPlain) s.total = block_sum(total);
  const float own_max = s.max;
  if constexpr (kBlocks > 1) {
    if (threadIdx.x == 0) own = s;
    cluster.sync();
    Sums all{-INFINITY, 0, 0, 0, 0};
    for (int b = 0; b < kBlocks; ++b) all.max = fmaxf(all.max, cluster.map_shared_rank(&own, b)->max);
    for (int b = 0; b < kBlocks; ++b) {
      const Sums part = *cluster.map_shared_rank(&own, b);
      all.total += part.total;
      all.ties += part.ties;
      if (part.max == -INFINITY) continue;
      const float shift = part.max - all.max, f = expf(shift);
      all.sum += part.sum * f;
      all.weighted += (part.weighted + part.sum * shift) * f;
    }
    s = all;
    cluster.sync();  // no block leaves, or writes to the row, before all have read
  } else {
    __syncthreads();
  }
  const float log_sum = logf(s.sum), lse = s.max + log_sum;
  if (rank == 0 && threadIdx.x == 0) {
    float loss = lse - at_label;
    if (a.smoothing > 0) loss = (1 - a.smoothing) * loss + a.smoothing * (lse - s.total / static_cast<float>(n));
    a.nll[r] = loss + a.z_loss * lse * lse;
    if (a.entropy) a.entropy[r] = log_sum - s.weighted / s.sum;
    if (a.correct) a.correct[r] = s.max == at_label && s.ties == 0;
  }
  if (!a.gradient) return;
  const float p_scale = (1 + 2 * a.z_loss * lse) / s.sum, even = a.smoothing / static_cast<float>(n);
  const float factor = a.row_scale[r] * a.logit_scale;
  const float from_own = factor * p_scale * expf(own_max == -INFINITY ? 0.f : own_max - s.max);
  bf16* narrow_row = reinterpret_cast<bf16*>(x);
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (column(p) < n) {
      const int at = label - column(p);  // in this pack: 0 .. kPack - 1
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        if (kPlain) {
          v[p][i] *= from_own;
        } else {
          const float t = a.softcap > 0 ? v[p][i] / a.softcap : 0.f;
          float g = __expf(v[p][i] - s.max) * p_scale - even;
          if (i == at) g -= 1 - a.smoothing;
          v[p][i] = g * factor * (1 - t * t);
        }
      }
      if (kPlain && static_cast<unsigned>(at) < kPack) {
#pragma unroll
        for (int i = 0; i < kPack; ++i)
          if (i == at) v[p][i] -= factor;
      }
      if (a.narrows)
        store_pack<kPack>(narrow_row, column(p), v[p]);
      else
        store_pack<kPack>(x, column(p), v[p]);
    }
#endif
}

template <int kBlocks>
void launch(StreamHandle stream, const RowLossLaunch& a) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(a.rows * kBlocks));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  cudaLaunchAttribute shape{};
  shape.id = cudaLaunchAttributeClusterDimension;
  shape.val.clusterDim.x = kBlocks;
  shape.val.clusterDim.y = shape.val.clusterDim.z = 1;
  config.attrs = &shape;
  config.numAttrs = 1;
  const bool is_plain = a.logit_scale == 1 && a.softcap <= 0 && a.smoothing == 0;
  cudaLaunchKernelEx(&config,
                     is_plain ? row_loss_cluster_kernel<kBlocks, true> : row_loss_cluster_kernel<kBlocks, false>,
                     a);  // a failure is found by check_launch()
}

}  // namespace

int64_t row_loss_sm90_columns() { return kMostBlocks * kBlockColumns; }

void launch_row_loss_sm90(StreamHandle stream, const RowLossLaunch& a) {
  const int64_t blocks = (a.n + kBlockColumns - 1) / kBlockColumns;
  if (blocks <= 1)
    launch<1>(stream, a);
  else if (blocks <= 2)
    launch<2>(stream, a);
  else if (blocks <= 4)
    launch<4>(stream, a);
  else
    launch<8>(stream, a);
}

}  // namespace pmetal::cuda
