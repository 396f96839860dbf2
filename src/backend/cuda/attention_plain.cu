// attention, plain, forward and backward, any floating dtype up to head sizes of 512: a warp per row and head. 32 keys
// at a time: each lane scores one of them, then the lanes hold columns of the result. No result depends on anything but
// its own row. It is the reference of attention.cu and serves what that declines (f32, large heads).
#include "backend/cuda/attention.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kWarps = 4, kMaxColumns = 16;  // columns of a lane

struct Score {
  float value, slope;
};
__device__ Score scored(const AttentionLaunch& a, float dotted) {
  float s = dotted * a.scale, slope = 1;
  if (a.softcap > 0) {
    const float t = tanhf(s / a.softcap);
    s = a.softcap * t;
    slope = 1 - t * t;
  }
  return {s, slope};
}

// Σ x[c] · row[c] for a row in global memory
__device__ float dot_row(const float* x, const View& v, int64_t at, int64_t step, int d) {
  float sum = 0;
  for (int c = 0; c < d; ++c) sum += x[c] * load_one<float>(v.data, v.dtype, at + c * step);
  return sum;
}
__device__ void copy_row(float* to, const View& v, int64_t at, int64_t step, int d) {
  for (int c = threadIdx.x % 32; c < d; c += 32) to[c] = load_one<float>(v.data, v.dtype, at + c * step);
}

__global__ void forward_kernel(AttentionLaunch a) {
  extern __shared__ float rows[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t item = blockIdx.x * int64_t{kWarps} + warp;
  const int q_heads = static_cast<int>(a.q.shape[1]), d_k = static_cast<int>(a.q.shape[2]),
            d_v = static_cast<int>(a.out.shape[2]);
  if (item >= a.q.shape[0] * q_heads) return;
  const int64_t row = item / q_heads;
  const int q_head = static_cast<int>(item % q_heads), head = q_head / a.group;
  const Sequence seq(a, sequence_of_row(a, static_cast<int>(row)));
  float* q = rows + warp * d_k;
  copy_row(q, a.q, row * a.q.strides[0] + q_head * a.q.strides[1], a.q.strides[2], d_k);
  __syncwarp();
  const int64_t k_step = a.k.strides[a.k.rank - 1], v_step = a.v.strides[a.v.rank - 1];
  const KeyRange seen = visible(a, seq.query_of(static_cast<int>(row) - seq.first_row), seq.keys);
  float peak = -INFINITY, sum = 0, out[kMaxColumns] = {};
  for (int base = seen.begin / 32 * 32; base < seen.end; base += 32) {
    const int key = base + lane;
    float s = -INFINITY;
    if (key >= seen.begin && key < seen.end)
      s = scored(a, dot_row(q, a.k, key_offset(a, a.k, seq.index, head, key), k_step, d_k)).value;
    const float top = fmaxf(peak, warp_max(s)), shift = top == -INFINITY ? 0.f : top;
    const float factor = expf(peak - shift), p = expf(s - shift);
    sum = sum * factor + warp_sum(p);
    peak = top;
#pragma unroll
    for (int j = 0; j < kMaxColumns; ++j) out[j] *= factor;
    const int first = max(seen.begin, base) - base, last = min(seen.end, base + 32) - base;
    for (int k = first; k < last; ++k) {
      const float weight = __shfl_sync(0xffffffffu, p, k);
      const int64_t at = key_offset(a, a.v, seq.index, head, base + k);
#pragma unroll
      for (int j = 0; j < kMaxColumns; ++j)
        if (j * 32 + lane < d_v) out[j] += weight * load_one<float>(a.v.data, a.v.dtype, at + (j * 32 + lane) * v_step);
    }
  }
  float factor = 1;
  if (a.sinks.data) {
    const float sink = load_one<float>(a.sinks.data, a.sinks.dtype, q_head * a.sinks.strides[0]);
    const float top = fmaxf(peak, sink);
    factor = expf(peak - top);
    sum = sum * factor + expf(sink - top);
    peak = top;
  }
  const float inverse = sum == 0 ? 0.f : factor / sum;
  const int64_t to = row * a.out.strides[0] + q_head * a.out.strides[1];
#pragma unroll
  for (int j = 0; j < kMaxColumns; ++j)
    if (j * 32 + lane < d_v)
      store_one(a.out.data, a.out.dtype, to + (j * 32 + lane) * a.out.strides[2], out[j] * inverse);
  if (a.lse.data && lane == 0)
    a.lse.as<float>()[row * a.lse.strides[0] + q_head * a.lse.strides[1]] = sum == 0 ? -INFINITY : peak + logf(sum);
}

__device__ float lse_at(const AttentionLaunch& a, int64_t row, int head) {
  return a.lse.as<float>()[row * a.lse.strides[0] + head * a.lse.strides[1]];
}

// delta[row, head] = Σ out · dout
__global__ void delta_kernel(AttentionLaunch a) {
  const int64_t item = blockIdx.x * int64_t{kWarps} + threadIdx.x / 32, q_heads = a.q.shape[1];
  if (item >= a.q.shape[0] * q_heads) return;
  const int64_t row = item / q_heads, head = item % q_heads;
  const int64_t o = row * a.out.strides[0] + head * a.out.strides[1],
                d = row * a.dout.strides[0] + head * a.dout.strides[1];
  float sum = 0;
  for (int64_t c = threadIdx.x % 32; c < a.out.shape[2]; c += 32)
    sum += load_one<float>(a.out.data, a.out.dtype, o + c * a.out.strides[2]) *
           load_one<float>(a.dout.data, a.dout.dtype, d + c * a.dout.strides[2]);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) a.delta[item] = sum;
}

__global__ void queries_kernel(AttentionLaunch a) {
  extern __shared__ float rows[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t item = blockIdx.x * int64_t{kWarps} + warp;
  const int q_heads = static_cast<int>(a.q.shape[1]), d_k = static_cast<int>(a.q.shape[2]),
            d_v = static_cast<int>(a.out.shape[2]);
  if (item >= a.q.shape[0] * q_heads) return;
  const int64_t row = item / q_heads;
  const int q_head = static_cast<int>(item % q_heads), head = q_head / a.group;
  const Sequence seq(a, sequence_of_row(a, static_cast<int>(row)));
  float *q = rows + warp * (d_k + d_v), *dout = q + d_k;
  copy_row(q, a.q, row * a.q.strides[0] + q_head * a.q.strides[1], a.q.strides[2], d_k);
  copy_row(dout, a.dout, row * a.dout.strides[0] + q_head * a.dout.strides[1], a.dout.strides[2], d_v);
  __syncwarp();
  const float lse = lse_at(a, row, q_head), delta = a.delta[item];
  const KeyRange seen = visible(a, seq.query_of(static_cast<int>(row) - seq.first_row), seq.keys);
  float dq[kMaxColumns] = {};
  for (int base = seen.begin / 32 * 32; base < seen.end; base += 32) {
    const int key = base + lane;
    float ds = 0;
    if (key >= seen.begin && key < seen.end) {
      const Score s = scored(a, dot_row(q, a.k, key_offset(a, a.k, seq.index, head, key), a.k.strides[2], d_k));
      const float dp = dot_row(dout, a.v, key_offset(a, a.v, seq.index, head, key), a.v.strides[2], d_v);
      ds = expf(s.value - lse) * (dp - delta) * s.slope * a.scale;
    }
    const int first = max(seen.begin, base) - base, last = min(seen.end, base + 32) - base;
    for (int k = first; k < last; ++k) {
      const float weight = __shfl_sync(0xffffffffu, ds, k);
      const int64_t at = key_offset(a, a.k, seq.index, head, base + k);
#pragma unroll
      for (int j = 0; j < kMaxColumns; ++j)
        if (j * 32 + lane < d_k)
          dq[j] += weight * load_one<float>(a.k.data, a.k.dtype, at + (j * 32 + lane) * a.k.strides[2]);
    }
  }
  const int64_t to = row * a.dq.strides[0] + q_head * a.dq.strides[1];
#pragma unroll
  for (int j = 0; j < kMaxColumns; ++j)
    if (j * 32 + lane < d_k) store_one(a.dq.data, a.dq.dtype, to + (j * 32 + lane) * a.dq.strides[2], dq[j]);
}

// a warp per key and key head: all queries of the sequence that see it, in order
__global__ void keys_kernel(AttentionLaunch a) {
  extern __shared__ float rows[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int kv_heads = static_cast<int>(a.k.shape[1]), d_k = static_cast<int>(a.q.shape[2]),
            d_v = static_cast<int>(a.out.shape[2]);
  const int64_t item = blockIdx.x * int64_t{kWarps} + warp;
  const Sequence seq(a, blockIdx.y);
  const int key = static_cast<int>(item / kv_heads), head = static_cast<int>(item % kv_heads);
  if (key >= seq.keys) return;
  const int64_t k_at = key_offset(a, a.k, seq.index, head, key), v_at = key_offset(a, a.v, seq.index, head, key);
  float *k = rows + warp * (d_k + d_v), *v = k + d_k;
  copy_row(k, a.k, k_at, a.k.strides[2], d_k);
  copy_row(v, a.v, v_at, a.v.strides[2], d_v);
  __syncwarp();
  float dk[kMaxColumns] = {}, dv[kMaxColumns] = {};
  const int n = seq.rows * a.group;
  for (int base = 0; base < n; base += 32) {
    const int p = base + lane;
    float weight = 0, ds = 0;
    bool hit = false;
    if (p < n) {
      const KeyRange seen = visible(a, seq.query_of(p / a.group), seq.keys);
      hit = key >= seen.begin && key < seen.end;
    }
    if (hit) {
      const int64_t row = seq.first_row + p / a.group;
      const int q_head = head * a.group + p % a.group;
      const Score s = scored(a, dot_row(k, a.q, row * a.q.strides[0] + q_head * a.q.strides[1], a.q.strides[2], d_k));
      const float dp = dot_row(v, a.dout, row * a.dout.strides[0] + q_head * a.dout.strides[1], a.dout.strides[2], d_v);
      weight = expf(s.value - lse_at(a, row, q_head));
      ds = weight * (dp - a.delta[row * a.q.shape[1] + q_head]) * s.slope * a.scale;
    }
    for (unsigned hits = __ballot_sync(0xffffffffu, hit); hits; hits &= hits - 1) {
      const int j = __ffs(hits) - 1;
      const float w = __shfl_sync(0xffffffffu, weight, j), d = __shfl_sync(0xffffffffu, ds, j);
      const int64_t row = seq.first_row + (base + j) / a.group;
      const int q_head = head * a.group + (base + j) % a.group;
      const int64_t q_at = row * a.q.strides[0] + q_head * a.q.strides[1];
      const int64_t o_at = row * a.dout.strides[0] + q_head * a.dout.strides[1];
#pragma unroll
      for (int i = 0; i < kMaxColumns; ++i) {
        const int c = i * 32 + lane;
        if (c < d_k) dk[i] += d * load_one<float>(a.q.data, a.q.dtype, q_at + c * a.q.strides[2]);
        if (c < d_v) dv[i] += w * load_one<float>(a.dout.data, a.dout.dtype, o_at + c * a.dout.strides[2]);
      }
    }
  }
  const int64_t row = a.cu_k.as<int32_t>()[seq.index] + key;
#pragma unroll
  for (int i = 0; i < kMaxColumns; ++i) {
    const int c = i * 32 + lane;
    if (c < d_k)
      store_one(a.dk.data, a.dk.dtype, row * a.dk.strides[0] + head * a.dk.strides[1] + c * a.dk.strides[2], dk[i]);
    if (c < d_v)
      store_one(a.dv.data, a.dv.dtype, row * a.dv.strides[0] + head * a.dv.strides[1] + c * a.dv.strides[2], dv[i]);
  }
}

__global__ void sinks_kernel(AttentionLaunch a) {
  const int head = blockIdx.x;
  const float sink = load_one<float>(a.sinks.data, a.sinks.dtype, head * a.sinks.strides[0]);
  float sum = 0;
  for (int64_t row = threadIdx.x; row < a.q.shape[0]; row += blockDim.x)
    sum += expf(sink - lse_at(a, row, head)) * a.delta[row * a.q.shape[1] + head];
  sum = block_sum(sum);
  if (threadIdx.x == 0) a.dsinks.as<float>()[head * a.dsinks.strides[0]] -= sum;
}

unsigned row_blocks(const AttentionLaunch& a) { return blocks_for(a.q.shape[0] * a.q.shape[1], kWarps); }

}  // namespace

void launch_attention_plain(StreamHandle stream, const AttentionLaunch& a) {
  const size_t bytes = static_cast<size_t>(kWarps * a.q.shape[2]) * 4;
  forward_kernel<<<row_blocks(a), kWarps * 32, bytes, stream>>>(a);
}

void launch_attention_delta(StreamHandle stream, const AttentionLaunch& a) {
  delta_kernel<<<row_blocks(a), kWarps * 32, 0, stream>>>(a);
  if (a.dsinks.data) sinks_kernel<<<static_cast<unsigned>(a.q.shape[1]), 256, 0, stream>>>(a);
}

void launch_attention_backward_plain(StreamHandle stream, const AttentionLaunch& a) {
  const size_t bytes = static_cast<size_t>(kWarps * (a.q.shape[2] + a.out.shape[2])) * 4;
  queries_kernel<<<row_blocks(a), kWarps * 32, bytes, stream>>>(a);
  const dim3 grid(blocks_for(a.max_kv * a.k.shape[1], kWarps), static_cast<unsigned>(a.sequences));
  keys_kernel<<<grid, kWarps * 32, bytes, stream>>>(a);
}

}  // namespace pmetal::cuda
