// attention backward on wgmma (sm_90a; bf16, head sizes up to 128), memory O(T), no atomics: same bits always. With
// P = exp(S − lse), D = Σ out · dout:
//   dV = Pᵀ dO,   dS = P · (dO Vᵀ − D) (· (1 − (s / cap)²)),   dQ = scale · dS K,   dK = scale · dSᵀ Q
// Two kernels, each computing S and dP again, seven products for the five of a version that adds up dQ in memory:
//   keys     a warpgroup owns 64 keys and walks the packed query rows that see them, 64 at a time and all heads of the
//            group. S is kept transposed, so P and dS in registers are the left operands of dV and dK.
//   queries  a warpgroup owns 64 packed query rows, q and dO in registers, and walks the keys, 64 at a time.
// In both, two warpgroups multiply, each at its own pace, and a third copies (attention_sm90.cuh). Blocks that work on
// the same sequence and head read the same tiles at the same time, from one end on that they have in common: keys from
// the first, rows from the last. Reference: attention_plain.cu.
#include <cuda_fp16.h>

#include "backend/cuda/attention_sm90.cuh"
#include "backend/cuda/overlap.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kRows = 64;   // packed rows, or keys, of a step
constexpr int kStages = 4;  // of the steps' tiles
// P is computed times 2^kLift: so it is an exact f16 down to 2^-28 and may be 4 (it is 1 at most, but for rounding)
constexpr float kLift = 14, kLower = 1.f / 16384;

template <int kD>
constexpr int kTileBytes = kRows* kD * 2;

// Row values of packed rows, [2][kv_heads][q_rows · group]: lse · log2(e) − kLift, then Σ out · dout; half a warp each.
// And the counters of the two kernels that follow.
__global__ void row_values_kernel(AttentionLaunch a, float* values) {
  let_next_start();
  if (blockIdx.x == 0 && threadIdx.x < 2) a.taken[threadIdx.x] = 0;
  const int64_t item = (blockIdx.x * int64_t{256} + threadIdx.x) / 16;
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
  const int64_t at = (q_head / a.group * a.q.shape[0] + row) * a.group + q_head % a.group;
  values[at] = lse == -INFINITY ? INFINITY : lse * kLog2e - kLift;
  values[at + a.q.shape[0] * q_heads] = sum;
}

#if PMETAL_WGMMA
// Lifted P and what dS multiplies beside P: 1, or the slope of the capped score. P is exp2(score · log2(e) − lse2).
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

__device__ __forceinline__ float2 load_pair(uint32_t at) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(at) : "memory");
  return v;
}

__device__ __forceinline__ uint32_t pair_f16(float low, float high) {
  uint32_t both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
__device__ __forceinline__ float2 unpaired_f16(uint32_t both) {
  return __half22float2(*reinterpret_cast<const __half2*>(&both));
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

// lse2 and delta of packed rows [first, first + kCount) to float[2][kCount], zeros from `n` on
template <int kCount>
__device__ __forceinline__ void load_row_values(const float* values, int64_t all, uint32_t to, int first, int n) {
  static_assert(2 * kCount % kWarpgroup == 0);
#pragma unroll
  for (int i = threadIdx.x % kWarpgroup; i < 2 * kCount; i += kWarpgroup) {
    const int p = first + i % kCount;
    const int bytes = p < n ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to + i * 4),
                 "l"(values + (i < kCount ? 0 : all) + p), "r"(bytes)
                 : "memory");
  }
}
#endif

// ---- keys ----
struct KeyPiece {
  int head, sequence, first_row, rows, keys, base, first, end;  // packed rows [first, end); rows < 0: the work is done
};
template <int kD, int kTiles, int kSteps>
struct KeyLayout {
  static constexpr int kTile = kTileBytes<kD>;
  static constexpr int kStepTiles = kTiles * 4 * kTile, kValues = kStepTiles + kSteps * 2 * kTile,
                       kPieces = kValues + kSteps * kRows * 8, kBarriers = kPieces + kTiles * 32,
                       kNext = kBarriers + 16 * (kTiles + kSteps), kAll = kNext + Pieces::kBytes + 1024;
};

__device__ __forceinline__ int steps_of(int first, int end) { return (end - first + kRows - 1) / kRows; }

// Queries [begin, end) of a sequence, counted from its first row: those that see any of the keys [first, first + n),
// n > 0, or those that see all of them.
struct QuerySpan {
  int begin, end;
};
__device__ __forceinline__ QuerySpan seeing(const AttentionLaunch& a, int rows, int keys, int first, int n, bool all) {
  const int near = all ? first + n - 1 : first, far = all ? first : first + n - 1;  // as a causal query meets them
  int begin = 0, end = all && first + n > keys ? 0 : 1 << 30;
  if (a.causal) begin = near;
  if (a.window > 0) {
    if (!a.causal) begin = max(begin, near - a.window + 1);
    end = min(end, far + a.window);
  }
  if (a.chunk > 0) {
    begin = max(begin, near / a.chunk * a.chunk);
    end = min(end, (far / a.chunk + 1) * a.chunk);
  }
  const int query0 = keys - rows;  // of row 0
  return {max(0, begin - query0), min(rows, end - query0)};
}

#if PMETAL_WGMMA
template <int kD, int kTiles, int kSteps>
__device__ __forceinline__ void copy_for_keys(const AttentionLaunch& a, const TileMaps& maps, const float* values,
                                              const WorkOrder& order, uint32_t shared, unsigned char* told,
                                              Ring<kTiles> tiles, Ring<kSteps> steps, uint32_t next) {
  using L = KeyLayout<kD, kTiles, kSteps>;
  const int heads = static_cast<int>(a.k.shape[1]), group = a.group;
  const int64_t all = a.q.shape[0] * a.q.shape[1];
  const GroupDivider divider(group);
  Pieces pieces(next);
  for (int index = blockIdx.x; index < order.count(); index = pieces.take()) {
    pieces.ask(order);
    const Work work(order, index, heads);
    const Sequence seq(a, work.sequence);
    const int base = work.tile * kBlockRows;
    if (base >= seq.keys) continue;
    const QuerySpan span = seeing(a, seq.rows, seq.keys, base, min(kBlockRows, seq.keys - base), false);
    const int first = span.begin * group / kRows * kRows, end = span.end * group;  // packed rows

    tiles.wait_empty();
    if (threadIdx.x % kWarpgroup == 0) {
      reinterpret_cast<KeyPiece*>(told)[tiles.stage] = {work.head, seq.index, seq.first_row, seq.rows,
                                                        seq.keys,  base,      first,         end};
      barrier_arrive(tiles.full());
    }
    const int row0 = first_key_row(a, seq.index);
    const uint32_t at = shared + tiles.stage * 4 * L::kTile;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      load_key_rows<kD, kRows>(maps.k, maps.has_keys, tiles.full(), a, a.k, at + half * L::kTile, seq.index, row0,
                               work.head, base + half * kRows, seq.keys);
      load_key_rows<kD, kRows>(maps.v, maps.has_keys, tiles.full(), a, a.v, at + (2 + half) * L::kTile, seq.index, row0,
                               work.head, base + half * kRows, seq.keys);
    }
    barrier_arrive_after_copies(tiles.full());
    tiles.advance();
    const float* packed_values = values + (work.head * a.q.shape[0] + seq.first_row) * group;
    for (int step = steps_of(first, end) - 1; step >= 0; --step) {
      const int p0 = first + step * kRows;
      steps.wait_empty();
      const uint32_t q_tile = shared + L::kStepTiles + steps.stage * 2 * L::kTile;
      load_packed_rows<kD, kRows>(maps.q, maps.has_rows, steps.full(), a.q, q_tile, seq.first_row, work.head, divider,
                                  p0, end);
      load_packed_rows<kD, kRows>(maps.dout, maps.has_rows, steps.full(), a.dout, q_tile + L::kTile, seq.first_row,
                                  work.head, divider, p0, end);
      load_row_values<kRows>(packed_values, all, shared + L::kValues + steps.stage * kRows * 8, p0, end);
      barrier_arrive_after_copies(steps.full());
      steps.advance();
    }
  }
  tiles.wait_empty();
  if (threadIdx.x % kWarpgroup == 0) {
    reinterpret_cast<KeyPiece*>(told)[tiles.stage].rows = -1;
    barrier_arrive(tiles.full());
  }
  barrier_arrive_after_copies(tiles.full());
  asm volatile("cp.async.wait_all;" ::: "memory");
}

template <int kD, bool kCapped, int kTiles, int kSteps>
__device__ __forceinline__ void multiply_for_keys(const AttentionLaunch& a, bool bulk_rows, bool bulk_keys,
                                                  uint32_t shared, const unsigned char* at_shared, Ring<kTiles> tiles,
                                                  Ring<kSteps> steps) {
  using L = KeyLayout<kD, kTiles, kSteps>;
  constexpr int kPanel = kRows * 128;
  const int warpgroup = warpgroup_index() - 1, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const GroupDivider divider(a.group);
  const float scale2 = a.scale * kLog2e;
  for (;; tiles.advance()) {
    tiles.wait_full(true);
    const KeyPiece piece = reinterpret_cast<const KeyPiece*>(at_shared + L::kPieces)[tiles.stage];
    if (piece.rows < 0) return;
    if (!bulk_keys || piece.base + kBlockRows > piece.keys) fence_async_proxy();
    const int first_key = piece.base + warpgroup * kRows, end = piece.end;
    // packed rows that see any of the warpgroup's keys, and those that see all
    const QuerySpan any = seeing(a, piece.rows, piece.keys, first_key, kRows, false),
                    all = seeing(a, piece.rows, piece.keys, first_key, kRows, true);
    const int any_begin = any.begin * a.group, any_end = first_key < piece.keys ? any.end * a.group : 0,
              all_begin = all.begin * a.group, all_end = all.end * a.group - kRows;
    const uint32_t tile = shared + (tiles.stage * 4 + warpgroup) * L::kTile;
    const uint64_t k_at = descriptor(tile, kPanel), v_at = descriptor(tile + 2 * L::kTile, kPanel);
    // K stays in registers, but not that of small heads: there ptxas 13.0 gives its registers away
    constexpr bool kHeld = kD > 64;
    [[maybe_unused]] uint32_t key[kD / 16][4];
    if constexpr (kHeld) load_a<kD>(key, tile);
    float dk[kD / 8][4], dv[kD / 8][4];
    int started = 0;  // the first product writes, the others add: no other instruction may write sums under way

    for (int step = steps_of(piece.first, end) - 1; step >= 0; --step, steps.advance()) {
      const int p0 = piece.first + step * kRows;
      steps.wait_full(bulk_rows && p0 + kRows <= end);
      if (p0 + kRows <= any_begin || p0 >= any_end) {
        steps.release(steps.stage);
        continue;
      }
      const bool whole = p0 >= all_begin && p0 <= all_end;
      const uint32_t q_tile = shared + L::kStepTiles + steps.stage * 2 * L::kTile;
      const uint64_t q_at = descriptor(q_tile, kPanel), o_at = descriptor(q_tile + L::kTile, kPanel);
      const uint32_t lse2 = shared + L::kValues + steps.stage * kRows * 8 + lane % 4 * 8, delta = lse2 + kRows * 4;
      float s[8][4];  // [64 keys, 64 rows]
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kD / 16; ++k) {
        const uint32_t at = column_step<kRows>(k) >> 4;
        if constexpr (kHeld)
          wgmma<0>(s, key[k], q_at + at, k > 0);
        else
          wgmma<0>(s, k_at + at, q_at + at, k > 0);
      }
      wgmma_commit();
      wgmma_wait<0>();
      pin(s);
      float slope[kCapped ? 8 : 1][4];
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const float2 v = load_pair(lse2 + n * 32);
#pragma unroll
        for (int i = 0; i < 4; ++i)
          s[n][i] = probability<kCapped>(a, s[n][i], scale2, i % 2 ? v.y : v.x, slope[kCapped ? n : 0][i]);
      }
      if (!whole) {
        // a key is seen by an interval of packed rows
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const QuerySpan span = seeing(a, piece.rows, piece.keys, first_key + warp * 16 + lane / 4 + h * 8, 1, false);
          const int low = span.begin * a.group - p0 - lane % 4 * 2, high = span.end * a.group - p0 - lane % 4 * 2;
#pragma unroll
          for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int j = 0; j < 2; ++j)
              if (n * 8 + j < low || n * 8 + j >= high) s[n][2 * h + j] = 0;
        }
      }
      // P as bf16 for dV and, since its f32 make place for dP, as f16 for dS
      uint32_t p[4][4], kept[8][2], ds[4][4];
      to_a<8>(p, s);
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          if constexpr (kCapped) s[n][2 * h] *= slope[n][2 * h], s[n][2 * h + 1] *= slope[n][2 * h + 1];
          kept[n][h] = pair_f16(s[n][2 * h], s[n][2 * h + 1]);
        }
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kD / 16; ++k)
        wgmma<0>(s, v_at + (column_step<kRows>(k) >> 4), o_at + (column_step<kRows>(k) >> 4), k > 0);
      wgmma_commit();
#pragma unroll
      for (int k = 0; k < 4; ++k) wgmma<1>(dv, p[k], o_at + k * (kRowStep >> 4), k > 0 || started);
      wgmma_commit();
      wgmma_wait<1>();
      pin(s);
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const float2 v = load_pair(delta + n * 32);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const float2 weights = unpaired_f16(kept[n][h]);
          s[n][2 * h] = weights.x * (s[n][2 * h] - v.x);
          s[n][2 * h + 1] = weights.y * (s[n][2 * h + 1] - v.y);
        }
      }
      to_a<8>(ds, s);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) wgmma<1>(dk, ds[k], q_at + k * (kRowStep >> 4), k > 0 || started);
      wgmma_commit();
      started = 1;
      wgmma_wait<0>();
      pin(dk);
      pin(dv);
      if constexpr (kHeld) keep(key);
      steps.release(steps.stage);
    }
    tiles.release(tiles.stage);
    const int first_row = a.cu_k.as<int32_t>()[piece.sequence];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int key = first_key + warp * 16 + lane / 4 + half * 8;
      if (key >= piece.keys) continue;
      const int64_t row = first_row + key;
      store_rows<kD>(dk, half, a.dk.as<bf16>() + row * a.dk.strides[0] + piece.head * a.dk.strides[1], a.q.shape[2],
                     a.scale * kLower, started);
      store_rows<kD>(dv, half, a.dv.as<bf16>() + row * a.dv.strides[0] + piece.head * a.dv.strides[1], a.out.shape[2],
                     kLower, started);
    }
  }
}
#endif

template <int kD, bool kCapped, int kTiles, int kSteps>
__global__ void __launch_bounds__(kBlockThreads, 1)
    keys_kernel(const __grid_constant__ AttentionLaunch a, const float* values, const __grid_constant__ WorkOrder order,
                const __grid_constant__ TileMaps maps) {
#if PMETAL_WGMMA
  wait_for_inputs();
  let_next_start();  // the row values are there: the queries' kernel needs no more
  extern __shared__ unsigned char raw[];
  using L = KeyLayout<kD, kTiles, kSteps>;
  const uint32_t unaligned = shared_address(raw), shared = (unaligned + 1023) & ~1023u;
  unsigned char* at_shared = raw + (shared - unaligned);
  const Ring<kTiles> tiles(shared + L::kBarriers);
  const Ring<kSteps> steps(tiles.barriers + tiles.kBytes);
  if (threadIdx.x == 0) {
    tiles.init(kWarpgroup + 1);
    steps.init(kWarpgroup);
  }
  __syncthreads();
  if (warpgroup_index() == 0) {
    give_registers<24>();
    copy_for_keys<kD, kTiles, kSteps>(a, maps, values, order, shared, at_shared + L::kPieces, tiles, steps,
                                      shared + L::kNext);
  } else {
    take_registers<24>();
    multiply_for_keys<kD, kCapped, kTiles, kSteps>(a, maps.has_rows, maps.has_keys, shared, at_shared, tiles, steps);
  }
#endif
}

// ---- queries ----
struct QueryPiece {
  int head, first_row, rows, keys, first, begin, end, unused;  // keys [begin, end); rows < 0: the work is done
};
template <int kD>
struct QueryLayout {
  static constexpr int kTile = kTileBytes<kD>;
  static constexpr int kStepTiles = 4 * kTile, kValues = kStepTiles + kStages * 2 * kTile,
                       kPieces = kValues + kBlockRows * 8, kBarriers = kPieces + 32,
                       kNext = kBarriers + 16 * (1 + kStages), kAll = kNext + Pieces::kBytes + 1024;
};

#if PMETAL_WGMMA
template <int kD>
__device__ __forceinline__ void copy_for_queries(const AttentionLaunch& a, const TileMaps& maps, const float* values,
                                                 const WorkOrder& order, uint32_t shared, unsigned char* told,
                                                 Ring<1> tiles, Ring<kStages> steps, uint32_t next) {
  using L = QueryLayout<kD>;
  const int heads = static_cast<int>(a.k.shape[1]), group = a.group;
  const int64_t all = a.q.shape[0] * a.q.shape[1];
  const GroupDivider divider(group);
  Pieces pieces(next);
  for (int index = blockIdx.x; index < order.count(); index = pieces.take()) {
    pieces.ask(order);
    const Work work(order, index, heads);
    const Sequence seq(a, work.sequence);
    const int n_packed = seq.rows * group, first = (order.tiles - 1 - work.tile) * kBlockRows;
    if (first >= n_packed) continue;
    const int last = min(first + kBlockRows, n_packed) - 1;
    const int begin = visible(a, seq.query_of(divider.query(first)), seq.keys).begin / kRows * kRows;
    const int end = visible(a, seq.query_of(divider.query(last)), seq.keys).end;
    tiles.wait_empty();
    if (threadIdx.x % kWarpgroup == 0) {
      *reinterpret_cast<QueryPiece*>(told) = {work.head, seq.first_row, seq.rows, seq.keys, first, begin, end, 0};
      barrier_arrive(tiles.full());
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = first + half * kRows;
      load_packed_rows<kD, kRows>(maps.q, maps.has_rows, tiles.full(), a.q, shared + half * L::kTile, seq.first_row,
                                  work.head, divider, at, n_packed);
      load_packed_rows<kD, kRows>(maps.dout, maps.has_rows, tiles.full(), a.dout, shared + (2 + half) * L::kTile,
                                  seq.first_row, work.head, divider, at, n_packed);
    }
    load_row_values<kBlockRows>(values + (work.head * a.q.shape[0] + seq.first_row) * group, all, shared + L::kValues,
                                first, n_packed);
    barrier_arrive_after_copies(tiles.full());
    tiles.advance();
    const int row0 = first_key_row(a, seq.index);
    for (int key = begin; key < end; key += kRows) {
      steps.wait_empty();
      const uint32_t k_tile = shared + L::kStepTiles + steps.stage * 2 * L::kTile;
      load_key_rows<kD, kRows>(maps.k, maps.has_keys, steps.full(), a, a.k, k_tile, seq.index, row0, work.head, key,
                               seq.keys);
      load_key_rows<kD, kRows>(maps.v, maps.has_keys, steps.full(), a, a.v, k_tile + L::kTile, seq.index, row0,
                               work.head, key, seq.keys);
      barrier_arrive_after_copies(steps.full());
      steps.advance();
    }
  }
  tiles.wait_empty();
  if (threadIdx.x % kWarpgroup == 0) {
    reinterpret_cast<QueryPiece*>(told)->rows = -1;
    barrier_arrive(tiles.full());
  }
  barrier_arrive_after_copies(tiles.full());
  asm volatile("cp.async.wait_all;" ::: "memory");
}

template <int kD, bool kCapped>
__device__ __forceinline__ void multiply_for_queries(const AttentionLaunch& a, bool bulk_rows, bool bulk_keys,
                                                     uint32_t shared, const unsigned char* at_shared, Ring<1> tiles,
                                                     Ring<kStages> steps) {
  using L = QueryLayout<kD>;
  constexpr int kPanel = kRows * 128;
  const int warpgroup = warpgroup_index() - 1, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const GroupDivider divider(a.group);
  const float scale2 = a.scale * kLog2e;
  for (;; tiles.advance()) {
    tiles.wait_full(true);
    const QueryPiece piece = *reinterpret_cast<const QueryPiece*>(at_shared + L::kPieces);
    if (piece.rows < 0) return;
    const int n_packed = piece.rows * a.group;
    const auto seen_by = [&](int p) {
      return p < n_packed ? visible(a, piece.keys - piece.rows + divider.query(p), piece.keys) : KeyRange{0, 0};
    };
    KeyRange seen[2];
    float lse2[2], delta[2];
    const float* row_values = reinterpret_cast<const float*>(at_shared + L::kValues);
    const int row0 = warpgroup * kRows + warp * 16 + lane / 4;  // of the tile
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      seen[h] = seen_by(piece.first + row0 + h * 8);
      lse2[h] = row_values[row0 + h * 8];
      delta[h] = row_values[kBlockRows + row0 + h * 8];
    }
    // what all rows of the warpgroup see, and what any does
    const int own_first = piece.first + warpgroup * kRows, own_last = min(own_first + kRows, n_packed) - 1;
    const KeyRange early = seen_by(own_first), late = own_first < n_packed ? seen_by(own_last) : KeyRange{0, 0};
    const bool full = own_first + kRows <= n_packed;

    // Q and dO stay in registers, but not in those of small heads: there ptxas 13.0 gave dS the registers of dO
    constexpr bool kHeld = kD > 64;
    [[maybe_unused]] uint32_t q[kD / 16][4], o[kD / 16][4];
    const uint32_t q_tile = shared + warpgroup * L::kTile, o_tile = q_tile + 2 * L::kTile;
    const uint64_t q_at = descriptor(q_tile, kPanel), o_at = descriptor(o_tile, kPanel);
    if constexpr (kHeld) {
      load_a<kD>(q, q_tile);
      load_a<kD>(o, o_tile);
      tiles.release(0);
    } else if (!bulk_rows || piece.first + kBlockRows > n_packed) {
      fence_async_proxy();
    }
    float dq[kD / 8][4];
    int started = 0, held = -1;

    for (int base = piece.begin; base < piece.end; base += kRows, steps.advance()) {
      steps.wait_full(bulk_keys && base + kRows <= piece.keys);
      if (base >= late.end || base + kRows <= early.begin) {
        wgmma_wait<0>();
        if (held >= 0) steps.release(held);
        held = -1;
        steps.release(steps.stage);
        continue;
      }
      const bool whole = full && base >= late.begin && base + kRows <= early.end;
      const uint32_t k_tile = shared + L::kStepTiles + steps.stage * 2 * L::kTile;
      const uint64_t k_at = descriptor(k_tile, kPanel), v_at = descriptor(k_tile + L::kTile, kPanel);
      float s[8][4], dp[8][4];
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kD / 16; ++k) {
        const uint32_t step = column_step<kRows>(k) >> 4;
        if constexpr (kHeld)
          wgmma<0>(s, q[k], k_at + step, k > 0);
        else
          wgmma<0>(s, q_at + step, k_at + step, k > 0);
      }
      wgmma_commit();
#pragma unroll
      for (int k = 0; k < kD / 16; ++k) {
        const uint32_t step = column_step<kRows>(k) >> 4;
        if constexpr (kHeld)
          wgmma<0>(dp, o[k], v_at + step, k > 0);
        else
          wgmma<0>(dp, o_at + step, v_at + step, k > 0);
      }
      wgmma_commit();
      wgmma_wait<1>();
      pin(s);
      pin(dq);
      if (held >= 0) steps.release(held);
      held = steps.stage;
      float slope[kCapped ? 8 : 1][4];
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          s[n][i] = probability<kCapped>(a, s[n][i], scale2, lse2[i / 2], slope[kCapped ? n : 0][i]);
      if (!whole) {
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int key = base + n * 8 + lane % 4 * 2 + i % 2;
            if (key < seen[i / 2].begin || key >= seen[i / 2].end) s[n][i] = 0;
          }
      }
      wgmma_wait<0>();
      pin(dp);
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          s[n][i] *= dp[n][i] - delta[i / 2];
          if constexpr (kCapped) s[n][i] *= slope[n][i];
        }
      uint32_t ds[4][4];
      to_a<8>(ds, s);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) wgmma<1>(dq, ds[k], k_at + k * (kRowStep >> 4), k > 0 || started);
      wgmma_commit();
      started = 1;
    }
    wgmma_wait<0>();
    pin(dq);
    if (held >= 0) steps.release(held);
    if constexpr (!kHeld) tiles.release(0);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int packed = piece.first + row0 + h * 8;
      if (packed >= n_packed) continue;
      const int query = divider.query(packed), q_head = piece.head * a.group + packed - query * a.group;
      store_rows<kD>(dq, h, a.dq.as<bf16>() + (piece.first_row + query) * a.dq.strides[0] + q_head * a.dq.strides[1],
                     a.q.shape[2], a.scale * kLower, started);
    }
  }
}
#endif

template <int kD, bool kCapped>
__global__ void __launch_bounds__(kBlockThreads, 1)
    queries_kernel(const __grid_constant__ AttentionLaunch a, const float* values,
                   const __grid_constant__ WorkOrder order, const __grid_constant__ TileMaps maps) {
#if PMETAL_WGMMA
  extern __shared__ unsigned char raw[];
  using L = QueryLayout<kD>;
  const uint32_t unaligned = shared_address(raw), shared = (unaligned + 1023) & ~1023u;
  unsigned char* at_shared = raw + (shared - unaligned);
  const Ring<1> tiles(shared + L::kBarriers);
  const Ring<kStages> steps(tiles.barriers + tiles.kBytes);
  if (threadIdx.x == 0) {
    tiles.init(kWarpgroup + 1);
    steps.init(kWarpgroup);
  }
  __syncthreads();
  if (warpgroup_index() == 0) {
    give_registers<24>();
    copy_for_queries<kD>(a, maps, values, order, shared, at_shared + L::kPieces, tiles, steps, shared + L::kNext);
    wait_for_inputs();  // so that what follows on the stream finds the keys' gradients as well
  } else {
    take_registers<24>();
    multiply_for_queries<kD, kCapped>(a, maps.has_rows, maps.has_keys, shared, at_shared, tiles, steps);
  }
#endif
}

template <int kD, bool kCapped, int kTiles, int kSteps>
void run_keys(StreamHandle stream, const AttentionLaunch& a, const float* values) {
  constexpr int kBytes = KeyLayout<kD, kTiles, kSteps>::kAll;
  static_assert(kBytes <= kSharedLimit);
  const auto kernel = keys_kernel<kD, kCapped, kTiles, kSteps>;
  static SharedLimit limit;
  allow_shared(limit, reinterpret_cast<const void*>(kernel), kBytes);
  // in one section: of blocks that are in step, one reads from memory for the others
  const WorkOrder order(blocks_for(a.max_kv, kBlockRows), a.k.shape[1] * a.sequences, 0, a.taken);
  launch_overlapped(stream, kernel, dim3(blocks_for(order.count(), 1, a.multiprocessors)), dim3(kBlockThreads), kBytes,
                    a, values, order, make_maps(a, kRows));
}

template <int kD, bool kCapped>
void run_queries(StreamHandle stream, const AttentionLaunch& a, const float* values) {
  constexpr int kBytes = QueryLayout<kD>::kAll;
  static_assert(kBytes <= kSharedLimit);
  const auto kernel = queries_kernel<kD, kCapped>;
  static SharedLimit limit;
  allow_shared(limit, reinterpret_cast<const void*>(kernel), kBytes);
  const WorkOrder order(blocks_for(int64_t{a.max_q} * a.group, kBlockRows), a.k.shape[1] * a.sequences,
                        a.max_kv * kD * 4, a.taken + 1);
  launch_overlapped(stream, kernel, dim3(blocks_for(order.count(), 1, a.multiprocessors)), dim3(kBlockThreads), kBytes,
                    a, values, order, make_maps(a, kRows));
}

void run_row_values(StreamHandle stream, const AttentionLaunch& a, float* values) {
  row_values_kernel<<<blocks_for(a.q.shape[0] * a.q.shape[1] * 16, 256), 256, 0, stream>>>(a, values);
}

// The queries' kernel is started while the keys' runs: its blocks take the multiprocessors that have no piece left.
template <int kD, bool kCapped>
void run(StreamHandle stream, const AttentionLaunch& a) {
  run_row_values(stream, a, a.delta);
  run_keys<kD, kCapped, 1, kStages>(stream, a, a.delta);
  run_queries<kD, kCapped>(stream, a, a.delta);
}

}  // namespace

void launch_attention_backward_sm90(StreamHandle stream, const AttentionLaunch& a) {
  const int64_t d = a.q.shape[2] > a.out.shape[2] ? a.q.shape[2] : a.out.shape[2];
  if (a.softcap > 0)
    d <= 64 ? run<64, true>(stream, a) : run<128, true>(stream, a);
  else
    d <= 64 ? run<64, false>(stream, a) : run<128, false>(stream, a);
}

}  // namespace pmetal::cuda
