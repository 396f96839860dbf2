// rope_append: a warp per token and head, query heads first, then keys, then values. A lane holds pairs (i, i + d / 2)
// of its head: the norm's sum is one over the warp and the rotation needs no other lane. Bound: bytes; in a decode step
// the latency of one pass.
#include "backend/cuda/overlap.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kWarps = 4,
              kMostPairs = 4;  // neighbours (2i, 2i + 1) of each half that a lane holds: d <= 2 * 2 * 32 * 4

__device__ __forceinline__ float2 pair_at(const bf16* p) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(p));
}
__device__ __forceinline__ void put_pair(bf16* p, float2 v) {
  *reinterpret_cast<__nv_bfloat162*>(p) = __floats2bfloat162_rn(v.x, v.y);
}

__global__ void __launch_bounds__(32 * kWarps) rope_append_kernel(RopeAppendLaunch a) {
  const int lane = threadIdx.x % 32, q_heads = static_cast<int>(a.q.shape[1]),
            kv_heads = static_cast<int>(a.k.shape[1]);
  const int heads = q_heads + 2 * kv_heads;
  const int64_t item = blockIdx.x * int64_t{kWarps} + threadIdx.x / 32;
  let_next_start();
  if (item >= a.q.shape[0] * heads) return;
  wait_for_inputs();
  const int64_t t = item / heads;
  int h = static_cast<int>(item % heads);
  const bool is_q = h < q_heads, is_v = h >= q_heads + kv_heads;
  const View& x = is_q ? a.q : is_v ? a.v : a.k;
  bf16* to;
  if (is_q) {
    to = a.q_out.as<bf16>() + t * a.q_out.strides[0] + h * a.q_out.strides[1];
  } else {
    h -= is_v ? q_heads + kv_heads : q_heads;
    const View& pages = is_v ? a.v_pages : a.k_pages;
    const int64_t slot = a.slots.as<int64_t>()[t * a.slots.strides[0]], size = pages.shape[2];
    if (slot < 0) return;
    to = pages.as<bf16>() + slot / size * pages.strides[0] + h * pages.strides[1] + slot % size * pages.strides[2];
  }
  const bf16* from = x.as<bf16>() + t * x.strides[0] + h * x.strides[1];
  const int d = static_cast<int>(x.shape[2]), half = d / 2;
  float2 low[kMostPairs], high[kMostPairs];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kMostPairs; ++i) {
    const int c = (i * 32 + lane) * 2;
    if (c >= half) break;
    low[i] = pair_at(from + c);
    high[i] = pair_at(from + c + half);
    squares += low[i].x * low[i].x + low[i].y * low[i].y + high[i].x * high[i].x + high[i].y * high[i].y;
  }
  const View& norm = is_q ? a.q_norm : a.k_norm;
  if (!is_v && norm.data) {
    const float rstd = 1.f / sqrtf(warp_sum(squares) / static_cast<float>(d) + a.eps);
    const auto scaled = [&](float v, int c) {
      return round_through<bf16>(round_through<bf16>(v * rstd) * load_one<float>(norm.data, norm.dtype, c));
    };
#pragma unroll
    for (int i = 0; i < kMostPairs; ++i) {
      const int c = (i * 32 + lane) * 2;
      if (c >= half) break;
      low[i] = make_float2(scaled(low[i].x, c), scaled(low[i].y, c + 1));
      high[i] = make_float2(scaled(high[i].x, c + half), scaled(high[i].y, c + half + 1));
    }
  }
#pragma unroll
  for (int i = 0; i < kMostPairs; ++i) {
    const int c = (i * 32 + lane) * 2;
    if (c >= half) break;
    if (!is_v) {
      const float2 cs = *reinterpret_cast<const float2*>(a.cos.as<float>() + t * a.cos.strides[0] + c);
      const float2 sn = *reinterpret_cast<const float2*>(a.sin.as<float>() + t * a.sin.strides[0] + c);
      const float2 u = low[i], v = high[i];
      low[i] = make_float2(u.x * cs.x - v.x * sn.x, u.y * cs.y - v.y * sn.y);
      high[i] = make_float2(v.x * cs.x + u.x * sn.x, v.y * cs.y + u.y * sn.y);
    }
    put_pair(to + c, low[i]);
    put_pair(to + c + half, high[i]);
  }
}

}  // namespace

void launch_rope_append(StreamHandle stream, const RopeAppendLaunch& a) {
  const int64_t items = a.q.shape[0] * (a.q.shape[1] + 2 * a.k.shape[1]);
  launch_overlapped(stream, rope_append_kernel, dim3(blocks_for(items, kWarps)), dim3(32 * kWarps), 0, a);
}

}  // namespace pmetal::cuda
