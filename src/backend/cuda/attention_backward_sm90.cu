// attention backward on wgmma (sm_90a; bf16, head sizes of 72 to 128), memory O(T), no atomics: same bits always. With
// P = exp(S − lse), D = Σ out · dout:
//   dV = Pᵀ dO,   dS = P · (dO Vᵀ − D) (· (1 − (s / cap)²)),   dQ = scale · dS K,   dK = scale · dSᵀ Q
// Two kernels of two warpgroups, each computing S and dP again, seven products for the five of a version with atomics:
//   keys     a block owns 128 keys, a warpgroup 64; it walks the packed query rows that see them, 64 at a time and all
//            heads of the group. S is kept transposed, so P and dS in registers are the left operands of dV and dK.
//   queries  a block owns 128 packed query rows, a warpgroup 64, q and dO in registers; it walks the keys, 64 at a
//   time.
// Tiles come by cp.async one step ahead; the last product of a step runs on while the next step's first ones are
// issued. Reference: attention_plain.cu.
#include "backend/cuda/attention_sm90.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kRows = 64;   // packed rows, or keys, of a step
constexpr int kStages = 3;  // one being read, one whose last product may still run, one being filled
constexpr int kBlockRows = 2 * kRows;

template <int kD>
constexpr int kTileBytes = kRows* kD * 2;

// (lse · log2(e), Σ out · dout) of packed rows [kv_heads][q_rows · group], half a warp each
__global__ void row_values_kernel(AttentionLaunch a, float2* values) {
  const int64_t item = (blockIdx.x * int64_t{kBlockThreads} + threadIdx.x) / 16;
  const int lane = threadIdx.x % 16, q_heads = static_cast<int>(a.q.shape[1]);
  if (item >= a.q.shape[0] * q_heads) return;
  const int64_t row = item / q_heads;
  const int q_head = static_cast<int>(item % q_heads);
  float sum = 0;
  if (lane * 8 < a.out.shape[2]) {
    float o[8], d[8];
    load_pack<8>(a.out.as<bf16>(), row * a.out.strides[0] + q_head * a.out.strides[1] + lane * 8, o);
    load_pack<8>(a.dout.as<bf16>(), row * a.dout.strides[0] + q_head * a.dout.strides[1] + lane * 8, d);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += o[i] * d[i];
  }
#pragma unroll
  for (int lanes = 8; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  if (lane != 0) return;
  const float lse = a.lse.as<float>()[row * a.lse.strides[0] + q_head * a.lse.strides[1]];
  values[(q_head / a.group * a.q.shape[0] + row) * a.group + q_head % a.group] =
      float2{lse == -INFINITY ? INFINITY : lse * kLog2e, sum};
}

#if PMETAL_WGMMA
// P and what dS multiplies beside P: 1, or the slope of the capped score. p is exp2(score · log2(e) − lse2).
template <bool kCapped>
__device__ __forceinline__ float probability(const AttentionLaunch& a, float dotted, float scale2, float lse2,
                                             float& slope) {
  if constexpr (kCapped) {
    const float t = tanhf(dotted * a.scale / a.softcap);
    slope = 1 - t * t;
    return exp2_fast(fmaf(a.softcap * kLog2e, t, -lse2));
  }
  slope = 1;
  return exp2_fast(fmaf(dotted, scale2, -lse2));
}

// a row of sums to global memory, scaled and rounded; zeros where no product was started
template <int kD>
__device__ __forceinline__ void store_rows(const float (&c)[kD / 8][4], int half, bf16* to, int64_t columns,
                                           float factor, int started) {
#pragma unroll
  for (int d = 0; d < kD / 8; ++d) {
    const int at = d * 8 + threadIdx.x % 4 * 2;
    const uint32_t both = started ? pair(c[d][2 * half] * factor, c[d][2 * half + 1] * factor) : 0u;
    if (at < columns) *reinterpret_cast<uint32_t*>(to + at) = both;
  }
}
#endif

template <int kD, bool kCapped>
__global__ void __launch_bounds__(kBlockThreads, 1) keys_kernel(AttentionLaunch a, const float2* values, int tiles) {
#if PMETAL_WGMMA
  extern __shared__ unsigned char raw[];
  constexpr int kTile = kTileBytes<kD>, kPanel = kRows * 128;
  const uint32_t unaligned = shared_address(raw), tiles_at = (unaligned + 1023) & ~1023u;
  const uint32_t steps_at = tiles_at + 4 * kTile, values_at = steps_at + kStages * 2 * kTile;
  const float2* row_values = reinterpret_cast<const float2*>(raw + (values_at - unaligned));
  int2* row_ranges = reinterpret_cast<int2*>(raw + (values_at - unaligned) + kStages * kRows * 8);

  const Work work(blockIdx.x, tiles, static_cast<int>(a.k.shape[1]), a.sequences);
  const Sequence seq(a, work.sequence);
  const int head = work.head, base = work.tile * kBlockRows;
  if (base >= seq.keys) return;
  const GroupDivider divider(a.group);
  const int warpgroup = threadIdx.x / 128, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int first_key = base + warpgroup * kRows;  // of this warpgroup

  // packed rows that see a key of the block
  int low = a.causal ? base : 0, high = seq.keys;
  const int top = base + kBlockRows - 1;
  if (a.window > 0) {
    if (!a.causal) low = max(low, base - a.window + 1);
    high = min(high, top + a.window);
  }
  if (a.chunk > 0) {
    low = max(low, base / a.chunk * a.chunk);
    high = min(high, (top / a.chunk + 1) * a.chunk);
  }
  const int query0 = seq.query_of(0);
  const int first = max(0, low - query0) * a.group / kRows * kRows;
  const int end = min(seq.rows, max(0, high - query0)) * a.group;

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    load_key_rows<kD, kRows>(a, a.k, tiles_at + half * kTile, seq.index, head, base + half * kRows, seq.keys);
    load_key_rows<kD, kRows>(a, a.v, tiles_at + (2 + half) * kTile, seq.index, head, base + half * kRows, seq.keys);
  }
  const float2* packed_values = values + (head * a.q.shape[0] + seq.first_row) * a.group;
  const auto fetch = [&](int p0, int stage) {
    const uint32_t q_tile = steps_at + stage * 2 * kTile;
    load_packed_rows<kD, kRows>(a.q, q_tile, seq.first_row, head, divider, p0, end);
    load_packed_rows<kD, kRows>(a.dout, q_tile + kTile, seq.first_row, head, divider, p0, end);
    if (threadIdx.x < kRows) {
      const int p = p0 + threadIdx.x;
      const bool exists = p < end;
      const int bytes = exists ? 8 : 0;
      asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(values_at + (stage * kRows + threadIdx.x) * 8),
                   "l"(packed_values + (exists ? p : 0)), "r"(bytes)
                   : "memory");
      const KeyRange seen = exists ? visible(a, seq.query_of(divider.query(p)), seq.keys) : KeyRange{0, 0};
      row_ranges[stage * kRows + threadIdx.x] = int2{seen.begin, seen.end};
    }
  };
  if (first < end) fetch(first, 0);
  commit();

  const uint64_t k_at = descriptor(tiles_at + warpgroup * kTile, kPanel),
                 v_at = descriptor(tiles_at + (2 + warpgroup) * kTile, kPanel);
  const float scale2 = a.scale * kLog2e;
  float dk[kD / 8][4], dv[kD / 8][4];
  int started = 0;  // the first product writes, the others add: no other instruction may write sums that are under way

  int stage = 0;
  for (int p0 = first; p0 < end; p0 += kRows) {
    wait<0>();
    fence_async_proxy();
    __syncthreads();  // this step's tiles are there, and all products but the last step's are done
    const int next = stage + 1 == kStages ? 0 : stage + 1;
    if (p0 + kRows < end) fetch(p0 + kRows, next);
    commit();
    // intervals grow with the query: the first and the last row say what the warpgroup's keys see of the tile
    const KeyRange early = visible(a, seq.query_of(divider.query(p0)), seq.keys),
                   late = visible(a, seq.query_of(divider.query(min(p0 + kRows, end) - 1)), seq.keys);
    if (first_key < late.end && first_key + kRows > early.begin) {
      const bool whole = p0 + kRows <= end && first_key >= late.begin && first_key + kRows <= early.end;
      const uint64_t q_at = descriptor(steps_at + stage * 2 * kTile, kPanel),
                     o_at = descriptor(steps_at + stage * 2 * kTile + kTile, kPanel);
      const float4* pairs = reinterpret_cast<const float4*>(row_values + stage * kRows);
      float s[8][4], dp[8][4];  // [64 keys, 64 rows]
      wgmma_wait<1>();          // dV of the last step
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kD / 16; ++k)
        wgmma<0>(s, k_at + (column_step<kRows>(k) >> 4), q_at + (column_step<kRows>(k) >> 4), k > 0);
      wgmma_commit();
#pragma unroll
      for (int k = 0; k < kD / 16; ++k)
        wgmma<0>(dp, v_at + (column_step<kRows>(k) >> 4), o_at + (column_step<kRows>(k) >> 4), k > 0);
      wgmma_commit();
      wgmma_wait<1>();
      pin(s);
      float weight[8][4], slope[8][4];
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const float4 v = pairs[n * 4 + lane % 4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          weight[n][i] = probability<kCapped>(a, s[n][i], scale2, i % 2 ? v.z : v.x, slope[n][i]);
      }
      if (!whole) {
        const int4* ranges = reinterpret_cast<const int4*>(row_ranges + stage * kRows);
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          const int4 range = ranges[n * 4 + lane % 4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int key = first_key + warp * 16 + lane / 4 + i / 2 * 8;
            const bool hit = i % 2 ? key >= range.z && key < range.w : key >= range.x && key < range.y;
            if (!hit) weight[n][i] = 0;
          }
        }
      }
      uint32_t p[4][4], ds[4][4];
      to_a<8>(p, weight);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) wgmma<1>(dv, p[k], o_at + k * (kRowStep >> 4), k > 0 || started);
      wgmma_commit();
      wgmma_wait<1>();
      pin(dp);
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const float4 v = pairs[n * 4 + lane % 4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          weight[n][i] *= dp[n][i] - (i % 2 ? v.w : v.y);
          if constexpr (kCapped) weight[n][i] *= slope[n][i];
        }
      }
      to_a<8>(ds, weight);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) wgmma<1>(dk, ds[k], q_at + k * (kRowStep >> 4), k > 0 || started);
      wgmma_commit();
      started = 1;
    } else {
      wgmma_wait<0>();  // whoever skips a step must not leave an older tile in use
    }
    stage = next;
  }
  wgmma_wait<0>();
  pin(dk);
  pin(dv);
  wait<0>();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int key = first_key + warp * 16 + lane / 4 + half * 8;
    if (key >= seq.keys) continue;
    const int64_t row = a.cu_k.as<int32_t>()[seq.index] + key;
    store_rows<kD>(dk, half, a.dk.as<bf16>() + row * a.dk.strides[0] + head * a.dk.strides[1], a.q.shape[2], a.scale,
                   started);
    store_rows<kD>(dv, half, a.dv.as<bf16>() + row * a.dv.strides[0] + head * a.dv.strides[1], a.out.shape[2], 1,
                   started);
  }
#endif
}

template <int kD, bool kCapped>
__global__ void __launch_bounds__(kBlockThreads, 1) queries_kernel(AttentionLaunch a, const float2* values, int tiles) {
#if PMETAL_WGMMA
  extern __shared__ unsigned char raw[];
  constexpr int kTile = kTileBytes<kD>, kPanel = kRows * 128;
  const uint32_t tiles_at = (shared_address(raw) + 1023) & ~1023u, steps_at = tiles_at + 4 * kTile;
  const Work work(blockIdx.x, tiles, static_cast<int>(a.k.shape[1]), a.sequences);
  const Sequence seq(a, work.sequence);
  const int head = work.head, n_packed = seq.rows * a.group;
  const int first = (tiles - 1 - work.tile) * kBlockRows;
  if (first >= n_packed) return;
  const GroupDivider divider(a.group);
  const int warpgroup = threadIdx.x / 128, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;

  const int last = min(first + kBlockRows, n_packed) - 1;
  const int begin_key = visible(a, seq.query_of(divider.query(first)), seq.keys).begin / kRows * kRows;
  const int end_key = visible(a, seq.query_of(divider.query(last)), seq.keys).end;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = first + half * kRows;
    load_packed_rows<kD, kRows>(a.q, tiles_at + half * kTile, seq.first_row, head, divider, at, n_packed);
    load_packed_rows<kD, kRows>(a.dout, tiles_at + (2 + half) * kTile, seq.first_row, head, divider, at, n_packed);
  }
  commit();
  const auto fetch = [&](int key, int stage) {
    const uint32_t k_tile = steps_at + stage * 2 * kTile;
    load_key_rows<kD, kRows>(a, a.k, k_tile, seq.index, head, key, seq.keys);
    load_key_rows<kD, kRows>(a, a.v, k_tile + kTile, seq.index, head, key, seq.keys);
  };
  if (begin_key < end_key) fetch(begin_key, 0);
  commit();

  KeyRange seen[2];
  float lse2[2], delta[2];
  int packed[2];
  const float2* packed_values = values + (head * a.q.shape[0] + seq.first_row) * a.group;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int p = first + warpgroup * kRows + warp * 16 + lane / 4 + h * 8;
    packed[h] = p < n_packed ? p : -1;
    seen[h] = p < n_packed ? visible(a, seq.query_of(divider.query(p)), seq.keys) : KeyRange{0, 0};
    const float2 v = p < n_packed ? packed_values[p] : float2{0, 0};
    lse2[h] = v.x;
    delta[h] = v.y;
  }
  // what all rows of the warpgroup see, and what any does
  const int own_first = first + warpgroup * kRows, own_last = min(own_first + kRows, n_packed) - 1;
  const bool own = own_first < n_packed;
  const KeyRange early = own ? visible(a, seq.query_of(divider.query(own_first)), seq.keys) : KeyRange{0, 0},
                 late = own ? visible(a, seq.query_of(divider.query(own_last)), seq.keys) : KeyRange{0, 0};
  const bool full = own_first + kRows <= n_packed;

  uint32_t q[kD / 16][4], o[kD / 16][4];
  wait<1>();
  __syncthreads();
  load_a<kD>(q, tiles_at + warpgroup * kTile);
  load_a<kD>(o, tiles_at + (2 + warpgroup) * kTile);

  const float scale2 = a.scale * kLog2e;
  float dq[kD / 8][4];
  int started = 0;

  int stage = 0;
  for (int base = begin_key; base < end_key; base += kRows) {
    wait<0>();
    fence_async_proxy();
    __syncthreads();
    const int next = stage + 1 == kStages ? 0 : stage + 1;
    if (base + kRows < end_key) fetch(base + kRows, next);
    commit();
    if (base < late.end && base + kRows > early.begin) {
      const bool whole = full && base >= late.begin && base + kRows <= early.end;
      const uint64_t k_at = descriptor(steps_at + stage * 2 * kTile, kPanel),
                     v_at = descriptor(steps_at + stage * 2 * kTile + kTile, kPanel);
      float s[8][4], dp[8][4];
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kD / 16; ++k) wgmma<0>(s, q[k], k_at + (column_step<kRows>(k) >> 4), k > 0);
      wgmma_commit();
#pragma unroll
      for (int k = 0; k < kD / 16; ++k) wgmma<0>(dp, o[k], v_at + (column_step<kRows>(k) >> 4), k > 0);
      wgmma_commit();
      wgmma_wait<1>();
      pin(s);
      float weight[8][4], slope[8][4];
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) weight[n][i] = probability<kCapped>(a, s[n][i], scale2, lse2[i / 2], slope[n][i]);
      if (!whole) {
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int key = base + n * 8 + lane % 4 * 2 + i % 2;
            if (key < seen[i / 2].begin || key >= seen[i / 2].end) weight[n][i] = 0;
          }
      }
      wgmma_wait<0>();
      pin(dp);
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          weight[n][i] *= dp[n][i] - delta[i / 2];
          if constexpr (kCapped) weight[n][i] *= slope[n][i];
        }
      uint32_t ds[4][4];
      to_a<8>(ds, weight);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) wgmma<1>(dq, ds[k], k_at + k * (kRowStep >> 4), k > 0 || started);
      wgmma_commit();
      started = 1;
    } else {
      wgmma_wait<0>();  // whoever skips a step must not leave an older tile in use
    }
    stage = next;
  }
  wgmma_wait<0>();
  pin(dq);
  wait<0>();
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (packed[h] < 0) continue;
    const int query = divider.query(packed[h]), q_head = head * a.group + packed[h] - query * a.group;
    store_rows<kD>(dq, h, a.dq.as<bf16>() + (seq.first_row + query) * a.dq.strides[0] + q_head * a.dq.strides[1],
                   a.q.shape[2], a.scale, started);
  }
#endif
}

template <int kD, bool kCapped>
void run(StreamHandle stream, const AttentionLaunch& a, float2* values) {
  constexpr int kTiles = 4 + 2 * kStages;
  constexpr int kQueryBytes = kTiles * kTileBytes<kD> + 1024, kKeyBytes = kQueryBytes + kStages * kRows * 16;
  static SharedLimit limit_queries, limit_keys;
  allow_shared(limit_queries, reinterpret_cast<const void*>(queries_kernel<kD, kCapped>), kQueryBytes);
  allow_shared(limit_keys, reinterpret_cast<const void*>(keys_kernel<kD, kCapped>), kKeyBytes);
  const unsigned pairs = static_cast<unsigned>(a.k.shape[1]) * static_cast<unsigned>(a.sequences);
  const unsigned key_tiles = blocks_for(a.max_kv, kBlockRows),
                 query_tiles = blocks_for(int64_t{a.max_q} * a.group, kBlockRows);
  row_values_kernel<<<blocks_for(a.q.shape[0] * a.q.shape[1] * 16, kBlockThreads), kBlockThreads, 0, stream>>>(a,
                                                                                                               values);
  keys_kernel<kD, kCapped>
      <<<key_tiles * pairs, kBlockThreads, kKeyBytes, stream>>>(a, values, static_cast<int>(key_tiles));
  queries_kernel<kD, kCapped>
      <<<query_tiles * pairs, kBlockThreads, kQueryBytes, stream>>>(a, values, static_cast<int>(query_tiles));
}

}  // namespace

void launch_attention_backward_sm90(StreamHandle stream, const AttentionLaunch& a) {
  float2* values = reinterpret_cast<float2*>(a.delta);
  a.softcap > 0 ? run<128, true>(stream, a, values) : run<128, false>(stream, a, values);
}

}  // namespace pmetal::cuda
