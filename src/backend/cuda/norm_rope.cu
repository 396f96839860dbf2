// norm_rope and its derivative. A pair (a, b) of a head's halves, n = x · rstd · w, turns to (a·cos − b·sin,
// b·cos + a·sin). Backward: dn = dy turned back, g = dn · w, dx = rstd · (g − x̂ · mean(g · x̂)), dw = Σ dn · x̂.
// d / 16 lanes share a head; a lane holds eight neighbours of each half, so that rotation needs no other lane, and
// takes several heads of one token, for which it reads weight and table once. Sums of a head are added in the order of
// rms_norm.cu. dw: a block adds its tokens in order, then the blocks are added in order. Bound: bytes, a read and a
// write forward, two reads and a write backward.
#include "backend/cuda/norm_rope.h"

#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256, kPack = 8, kMostBlocks = 132 * 8;
constexpr int kForwardHeads = 4, kBackwardHeads = 1;  // of one token that a lane takes

constexpr int kPairs = kPack / 2;
struct alignas(16) Eight {
  __nv_bfloat162 v[kPairs];
};

__device__ __forceinline__ Eight eight_at(const void* data, int64_t at) {
  return *reinterpret_cast<const Eight*>(static_cast<const bf16*>(data) + at);
}
__device__ __forceinline__ void put_eight(void* data, int64_t at, const Eight& e) {
  *reinterpret_cast<Eight*>(static_cast<bf16*>(data) + at) = e;
}
__device__ __forceinline__ float2 wide(__nv_bfloat162 v) { return __bfloat1622float2(v); }

template <int kLanes>
__device__ __forceinline__ float lanes_sum(float v) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
  return v;
}

// A lane's part of the table and of the weight.
struct Share {
  float cos[kPack], sin[kPack], low[kPack], high[kPack];
  __device__ __forceinline__ void load_weight(const NormRopeLaunch& a, int lane, int half) {
    load_any<kPack>(a.weight, a.weight_dtype, lane * kPack, low);
    load_any<kPack>(a.weight, a.weight_dtype, lane * kPack + half, high);
  }
  __device__ __forceinline__ void load_table(const NormRopeLaunch& a, int64_t token, int lane) {
    load_pack<kPack>(a.cos, token * a.table_stride + lane * kPack, cos);
    load_pack<kPack>(a.sin, token * a.table_stride + lane * kPack, sin);
  }
};

template <int kLanes>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(NormRopeLaunch a, int groups, int64_t items) {
  const int lane = threadIdx.x % kLanes, half = kLanes * kPack, heads = static_cast<int>(a.heads);
  const int64_t item = blockIdx.x * int64_t{kThreads / kLanes} + threadIdx.x / kLanes;
  const bool is_in = item < items;
  const int64_t token = is_in ? static_cast<uint32_t>(item) / static_cast<uint32_t>(groups) : 0;
  const int first = is_in ? static_cast<int>(item - token * groups) * kForwardHeads : heads;
  Eight low[kForwardHeads], high[kForwardHeads];
#pragma unroll
  for (int i = 0; i < kForwardHeads; ++i)
    if (first + i < heads) {
      const int64_t at = token * a.x_stride + (first + i) * a.x_head_stride + lane * kPack;
      low[i] = eight_at(a.x, at);
      high[i] = eight_at(a.x, at + half);
    }
  Share share;
  share.load_weight(a, lane, half);
  share.load_table(a, token, lane);
  float rstd[kForwardHeads];
#pragma unroll
  for (int i = 0; i < kForwardHeads; ++i) {
    float s = 0, t = 0;
    if (first + i < heads) {
#pragma unroll
      for (int j = 0; j < kPairs; ++j) {
        const float2 u = wide(low[i].v[j]), v = wide(high[i].v[j]);
        s += u.x * u.x, s += u.y * u.y;
        t += v.x * v.x, t += v.y * v.y;
      }
    }
    rstd[i] = 1.f / sqrtf(lanes_sum<kLanes>(s + t) / static_cast<float>(a.d) + a.eps);
  }
#pragma unroll
  for (int i = 0; i < kForwardHeads; ++i)
    if (first + i < heads) {
      Eight to_low, to_high;
#pragma unroll
      for (int j = 0; j < kPairs; ++j) {
        const auto normed = [&](__nv_bfloat162 raw, const float(&w)[kPack]) {
          const float2 x = wide(raw), n = wide(__floats2bfloat162_rn(x.x * rstd[i], x.y * rstd[i]));
          return wide(__floats2bfloat162_rn(n.x * w[2 * j], n.y * w[2 * j + 1]));
        };
        const float2 u = normed(low[i].v[j], share.low), v = normed(high[i].v[j], share.high);
        const float c = share.cos[2 * j], s = share.sin[2 * j], c1 = share.cos[2 * j + 1], s1 = share.sin[2 * j + 1];
        to_low.v[j] = __floats2bfloat162_rn(u.x * c - v.x * s, u.y * c1 - v.y * s1);
        to_high.v[j] = __floats2bfloat162_rn(v.x * c + u.x * s, v.y * c1 + u.y * s1);
      }
      const int64_t at = token * a.y_stride + (first + i) * a.y_head_stride + lane * kPack;
      put_eight(a.y, at, to_low);
      put_eight(a.y, at + half, to_high);
    }
}

template <int kLanes, bool kWeight>
__global__ void __launch_bounds__(kThreads, kWeight ? 2 : 3)
    backward_kernel(NormRopeLaunch a, int groups, int64_t items) {
  constexpr int kGroups = kThreads / kLanes;  // of lanes
  const int lane = threadIdx.x % kLanes, half = kLanes * kPack, heads = static_cast<int>(a.heads);
  Share share;
  share.load_weight(a, lane, half);
  float dw_low[kPack] = {}, dw_high[kPack] = {};
  const int64_t rounds = (items + int64_t{gridDim.x} * kGroups - 1) / (int64_t{gridDim.x} * kGroups);
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t item = (round * gridDim.x + blockIdx.x) * kGroups + threadIdx.x / kLanes;
    const bool is_in = item < items;
    const int64_t token = is_in ? static_cast<uint32_t>(item) / static_cast<uint32_t>(groups) : 0;
    const int first = is_in ? static_cast<int>(item - token * groups) * kBackwardHeads : heads;
    Eight x_low[kBackwardHeads], x_high[kBackwardHeads], dy_low[kBackwardHeads], dy_high[kBackwardHeads];
#pragma unroll
    for (int i = 0; i < kBackwardHeads; ++i)
      if (first + i < heads) {
        const int64_t at = token * a.x_stride + (first + i) * a.x_head_stride + lane * kPack,
                      dy_at = token * a.dy_stride + (first + i) * a.dy_head_stride + lane * kPack;
        x_low[i] = eight_at(a.x, at), x_high[i] = eight_at(a.x, at + half);
        dy_low[i] = eight_at(a.dy, dy_at), dy_high[i] = eight_at(a.dy, dy_at + half);
      }
    share.load_table(a, token, lane);
#pragma unroll
    for (int i = 0; i < kBackwardHeads; ++i) {
      const bool is_head = first + i < heads;
      float g_low[kPack], g_high[kPack], s = 0, t = 0, product = 0;
      if (is_head) {
#pragma unroll
        for (int j = 0; j < kPairs; ++j) {
          const float2 u = wide(dy_low[i].v[j]), v = wide(dy_high[i].v[j]), p = wide(x_low[i].v[j]),
                       q = wide(x_high[i].v[j]);
          const auto add = [&](int k, float u1, float v1, float p1, float q1) {
            g_low[k] = u1 * share.cos[k] + v1 * share.sin[k];
            g_high[k] = v1 * share.cos[k] - u1 * share.sin[k];
            s += p1 * p1;
            t += q1 * q1;
            product += g_low[k] * share.low[k] * p1 + g_high[k] * share.high[k] * q1;
          };
          add(2 * j, u.x, v.x, p.x, q.x);
          add(2 * j + 1, u.y, v.y, p.y, q.y);
        }
      }
      const float rstd = 1.f / sqrtf(lanes_sum<kLanes>(s + t) / static_cast<float>(a.d) + a.eps);
      const float mean = lanes_sum<kLanes>(product) * rstd / static_cast<float>(a.d);
      if (!is_head) continue;
      const float by_x = rstd * rstd * mean;
      Eight to_low, to_high;
#pragma unroll
      for (int j = 0; j < kPairs; ++j) {
        const auto turned = [&](__nv_bfloat162 raw, const float(&g)[kPack], const float(&w)[kPack], float(&dw)[kPack]) {
          const float2 x = wide(raw);
          if (kWeight) {
            const float2 n = wide(__floats2bfloat162_rn(x.x * rstd, x.y * rstd));
            dw[2 * j] += g[2 * j] * n.x;
            dw[2 * j + 1] += g[2 * j + 1] * n.y;
          }
          return __floats2bfloat162_rn(rstd * g[2 * j] * w[2 * j] - x.x * by_x,
                                       rstd * g[2 * j + 1] * w[2 * j + 1] - x.y * by_x);
        };
        to_low.v[j] = turned(x_low[i].v[j], g_low, share.low, dw_low);
        to_high.v[j] = turned(x_high[i].v[j], g_high, share.high, dw_high);
      }
      if (!a.dx) continue;
      const int64_t at = token * a.y_stride + (first + i) * a.y_head_stride + lane * kPack;
      put_eight(a.dx, at, to_low);
      put_eight(a.dx, at + half, to_high);
    }
  }
  if constexpr (kWeight) {
    constexpr int d = 2 * kLanes * kPack;
    __shared__ float part[kGroups * d];
#pragma unroll
    for (int j = 0; j < kPack; ++j) {
      part[threadIdx.x / kLanes * d + lane * kPack + j] = dw_low[j];
      part[threadIdx.x / kLanes * d + lane * kPack + j + half] = dw_high[j];
    }
    __syncthreads();
    for (int c = threadIdx.x; c < d; c += kThreads) {
      float sum = 0;
      for (int g = 0; g < kGroups; ++g) sum += part[g * d + c];
      a.partial[blockIdx.x * int64_t{d} + c] = sum;
    }
  }
}

// a block for each column
__global__ void __launch_bounds__(kThreads) weight_kernel(NormRopeLaunch a, int blocks) {
  float sum = 0;
  for (int i = threadIdx.x; i < blocks; i += kThreads) sum += a.partial[i * a.d + blockIdx.x];
  sum = block_sum(sum);
  if (threadIdx.x == 0) a.dweight[blockIdx.x] += sum;
}

int64_t groups_of(int64_t heads, int per_lane) { return (heads + per_lane - 1) / per_lane; }

template <class Launch>
void with_lanes(int64_t d, const Launch& launch) {
  switch (d / 16) {
    case 1: return launch(std::integral_constant<int, 1>{});
    case 2: return launch(std::integral_constant<int, 2>{});
    case 4: return launch(std::integral_constant<int, 4>{});
    case 8: return launch(std::integral_constant<int, 8>{});
    case 16: return launch(std::integral_constant<int, 16>{});
    default: return launch(std::integral_constant<int, 32>{});
  }
}

}  // namespace

int64_t norm_rope_blocks(int64_t tokens, int64_t heads, int64_t d) {
  return blocks_for(tokens * groups_of(heads, kBackwardHeads), kThreads / (d / 16), kMostBlocks);
}

void launch_norm_rope(StreamHandle stream, const NormRopeLaunch& a) {
  const int64_t groups = groups_of(a.heads, kForwardHeads), items = a.tokens * groups;
  with_lanes(a.d, [&](auto lanes) {
    forward_kernel<lanes()>
        <<<blocks_for(items, kThreads / lanes()), kThreads, 0, stream>>>(a, static_cast<int>(groups), items);
  });
}

void launch_norm_rope_backward(StreamHandle stream, const NormRopeLaunch& a) {
  const int64_t groups = groups_of(a.heads, kBackwardHeads), items = a.tokens * groups;
  const int64_t blocks = norm_rope_blocks(a.tokens, a.heads, a.d);
  with_lanes(a.d, [&](auto lanes) {
    const auto kernel = a.dweight ? backward_kernel<lanes(), true> : backward_kernel<lanes(), false>;
    kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(a, static_cast<int>(groups), items);
  });
  if (a.dweight) weight_kernel<<<static_cast<unsigned>(a.d), kThreads, 0, stream>>>(a, static_cast<int>(blocks));
}

}  // namespace pmetal::cuda
