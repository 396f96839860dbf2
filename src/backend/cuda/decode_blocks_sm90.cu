// All blocks of a decoder for one token, in one launch: a block of threads on each multiprocessor walks the layers, and
// the grid meets at a barrier between phases:
//   1 norm · q k v    2 head norms, rope, append, attention over a split    3 merge of the splits, o + residual
//   4 norm · gate up · act    5 down + residual
// One warp (the producer) streams everything that does not depend on the step into a ring of shared memory, in the
// order of use and across phases and layers: this multiprocessor's rows of the weights, and the pages of its keys and
// values. It never waits at a barrier, so the memory is kept busy while the other eight warps compute, wait and
// exchange a few kilobytes through L2. Bound: the bytes of weights, keys and values, read once; below that the latency
// of five phases.
//
// A multiprocessor owns a contiguous range of rows of each weight, which is one contiguous range of bytes; stages are
// 16 KiB of it, or a page of keys or values of one head. A warp takes four segments of 256 columns of each stage; sums
// of up to 1024 columns go to shared memory and are added up per row in order: the same bits every time.
#include "backend/cuda/attention.cuh"
#include "backend/cuda/decode_blocks.h"
#include "backend/cuda/glu.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kStageBytes = 16 << 10, kMostStages = 13;
constexpr int kSegment = 256, kSegmentsOfStage = kStageBytes / 2 / kSegment,
              kSegmentsOfWarp = kSegmentsOfStage / kWarps;
constexpr int kMostGroup = 8, kMostHead = 128, kNormPacks = 4;  // hidden <= 4 · 8 · 256
constexpr int kStaticBytes = 9 << 10, kSharedBytes = 227 << 10;

__device__ __forceinline__ void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(kThreads) : "memory"); }

__device__ __forceinline__ float low_of(uint32_t v) { return __uint_as_float(v << 16); }
__device__ __forceinline__ float high_of(uint32_t v) { return __uint_as_float(v & 0xffff0000u); }
__device__ __forceinline__ float dot8(const uint4& a, const uint4& b, float sum) {
  const uint32_t u[4] = {a.x, a.y, a.z, a.w}, v[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum = fmaf(low_of(u[i]), low_of(v[i]), sum);
    sum = fmaf(high_of(u[i]), high_of(v[i]), sum);
  }
  return sum;
}
__device__ __forceinline__ float value_of(const void* bf16s, int i) {
  return __bfloat162float(static_cast<const bf16*>(bf16s)[i]);
}
__device__ __forceinline__ bf16 fresh(const void* bf16s, int i) {  // written by another multiprocessor: from L2
  const unsigned short v = __ldcg(static_cast<const unsigned short*>(bf16s) + i);
  return __ushort_as_bfloat16(v);
}
__device__ __forceinline__ float2 fresh_pair(const void* bf16s, int i) {
  const uint32_t v = __ldcg(reinterpret_cast<const uint32_t*>(static_cast<const bf16*>(bf16s) + i));
  return make_float2(low_of(v), high_of(v));
}
__device__ __forceinline__ float2 pair_of(const void* bf16s, int i) {
  const uint32_t v = *reinterpret_cast<const uint32_t*>(static_cast<const bf16*>(bf16s) + i);
  return make_float2(low_of(v), high_of(v));
}

// ---- the ring ----
struct Ring {
  uint32_t data, full, empty;  // shared addresses: stages, then their barriers
  int stages, stage = 0;
  uint32_t parity = 0;  // of the round
  __device__ void advance() {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};
__device__ __forceinline__ void wait_for(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
  } while (!done);
}
__device__ __forceinline__ void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// the producer: the next stage from `from`; bytes: a multiple of 16
__device__ __forceinline__ void put(Ring& ring, const void* from, uint32_t bytes, uint64_t policy) {
  const uint32_t full = ring.full + ring.stage * 8;
  wait_for(ring.empty + ring.stage * 8, ring.parity ^ 1);
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(full), "r"(bytes) : "memory");
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(ring.data + ring.stage * kStageBytes),
      "l"(from), "r"(bytes), "r"(full), "l"(policy)
      : "memory");
  ring.advance();
}
// consumers: the shared address of the next stage once its bytes are there; every warp takes every stage
__device__ __forceinline__ uint32_t take(Ring& ring) {
  wait_for(ring.full + ring.stage * 8, ring.parity);
  return ring.data + ring.stage * kStageBytes;
}
__device__ __forceinline__ void give_back(Ring& ring) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) arrive(ring.empty + ring.stage * 8);
  ring.advance();
}
__device__ __forceinline__ uint4 load_shared(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}

// ---- who does what ----
struct Rows {
  int first, n;
};
__device__ __forceinline__ Rows rows_of(int all) {
  const int first = static_cast<int>(int64_t{all} * blockIdx.x / gridDim.x);
  return {first, static_cast<int>(int64_t{all} * (blockIdx.x + 1) / gridDim.x) - first};
}
struct Slice {  // contiguous rows of a weight
  const bf16* w;
  int n;
};
__device__ __forceinline__ Slice slice_of(const void* w, int begin, int size, Rows rows, int k) {
  const int low = max(rows.first, begin), high = min(rows.first + rows.n, begin + size);
  return {static_cast<const bf16*>(w) + int64_t{low - begin} * k, max(0, high - low)};
}
// this block's part of the attention of a layer
struct Part {
  int head, split, splits;
  int begin_tile, end_tile;  // pages of the sequence; nothing to do: equal
  int begin, end;            // keys that are seen
};
__device__ __forceinline__ Part part_of(const DecodeBlocksLaunch& a, int window, int keys) {
  Part p;
  const int most = min(static_cast<int>(gridDim.x) / a.kv_heads, kMostDecodeSplits);
  p.head = blockIdx.x % a.kv_heads;
  p.split = blockIdx.x / a.kv_heads;
  p.end = keys;
  p.begin = window > 0 ? max(0, keys - window) : 0;
  const int first = p.begin / kKeyTile, tiles = (p.end + kKeyTile - 1) / kKeyTile - first;
  const int each = max(1, (tiles + most - 1) / most);
  p.splits = (tiles + each - 1) / each;
  p.begin_tile = p.end_tile = 0;
  if (p.split < p.splits) {
    p.begin_tile = first + p.split * each;
    p.end_tile = min(first + tiles, p.begin_tile + each);
  }
  return p;
}

// ---- the producer ----
__device__ __forceinline__ void stream(Ring& ring, Slice s, int k, uint64_t policy) {
  const char* from = reinterpret_cast<const char*>(s.w);
  for (int64_t left = int64_t{s.n} * k * 2; left > 0; left -= kStageBytes, from += kStageBytes)
    put(ring, from, static_cast<uint32_t>(left < kStageBytes ? left : kStageBytes), policy);
}
__device__ void produce(const DecodeBlocksLaunch& a, Ring ring) {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  const int q = a.heads * a.d, kv = a.kv_heads * a.d, keys = a.kv_len[0];
  const Rows qkv = rows_of(q + 2 * kv), inner = rows_of(a.n_inner), hidden = rows_of(a.hidden);
  const uint32_t page_bytes = kKeyTile * a.d * 2;
  for (int l = 0; l < a.n; ++l) {
    const DecodeBlockLaunch& b = a.block[l];
    stream(ring, slice_of(b.q, 0, q, qkv, a.hidden), a.hidden, policy);
    stream(ring, slice_of(b.k, q, kv, qkv, a.hidden), a.hidden, policy);
    stream(ring, slice_of(b.v, q + kv, kv, qkv, a.hidden), a.hidden, policy);
    const Part p = part_of(a, b.window, keys);
    for (int tile = p.begin_tile; tile < p.end_tile; ++tile) {
      const int64_t at = (int64_t{a.pages[tile]} * a.kv_heads + p.head) * kKeyTile * a.d;
      put(ring, static_cast<const bf16*>(b.k_pages) + at, page_bytes, policy);
      put(ring, static_cast<const bf16*>(b.v_pages) + at, page_bytes, policy);
    }
    stream(ring, slice_of(b.o, 0, a.hidden, hidden, q), q, policy);
    stream(ring, slice_of(b.gate, 0, a.n_inner, inner, a.hidden), a.hidden, policy);
    stream(ring, slice_of(b.up, 0, a.n_inner, inner, a.hidden), a.hidden, policy);
    stream(ring, slice_of(b.down, 0, a.hidden, hidden, a.n_inner), a.n_inner, policy);
  }
}

// ---- products ----
// The slice's next rows with x: a sum for each segment to partial[base ..]; base goes on by as many.
__device__ __forceinline__ void multiply(Ring& ring, int rows, int per_row, const bf16* x, float* partial, int& base) {
  constexpr int kStagesAtOnce = 2, kSums = kStagesAtOnce * kSegmentsOfWarp;
  static_assert(kSums == 8, "three halvings below");
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, all = rows * per_row;
  const int stages = (all + kSegmentsOfStage - 1) / kSegmentsOfStage;
  const uint32_t x_address = shared_address(x) + lane * 16;
  const int step = kSegmentsOfStage % per_row;
  int column = warp * kSegmentsOfWarp % per_row;  // of this warp's first segment, in segments
#pragma unroll 1
  for (int c = 0; c < stages; c += kStagesAtOnce) {
    float sums[kSums] = {};
#pragma unroll
    for (int p = 0; p < kStagesAtOnce; ++p) {
      if (c + p >= stages) break;
      const uint32_t from = take(ring) + warp * kSegmentsOfWarp * kSegment * 2 + lane * 16;
      int at = column;
#pragma unroll
      for (int s = 0; s < kSegmentsOfWarp; ++s) {
        if ((c + p) * kSegmentsOfStage + warp * kSegmentsOfWarp + s < all)
          sums[p * kSegmentsOfWarp + s] =
              dot8(load_shared(from + s * kSegment * 2), load_shared(x_address + at * kSegment * 2), 0.f);
        at = at + 1 == per_row ? 0 : at + 1;
      }
      give_back(ring);
      column += step;
      if (column >= per_row) column -= per_row;
    }
    // sums over the warp: each halving leaves a lane half of the values, then four lanes share one
#pragma unroll
    for (int n = kSums / 2, bit = 16; n > 0; n /= 2, bit /= 2)
#pragma unroll
      for (int i = 0; i < n; ++i) {
        const bool high = lane & bit;
        sums[i] = (high ? sums[i + n] : sums[i]) + __shfl_xor_sync(0xffffffffu, high ? sums[i] : sums[i + n], bit);
      }
    sums[0] += __shfl_xor_sync(0xffffffffu, sums[0], 2);
    sums[0] += __shfl_xor_sync(0xffffffffu, sums[0], 1);
    const int mine = lane / 4, segment = (c + mine / kSegmentsOfWarp) * kSegmentsOfStage + warp * kSegmentsOfWarp +
                                         mine % kSegmentsOfWarp;
    if (lane % 4 == 0 && segment < all) partial[base + segment] = sums[0];
  }
  base += all;
}
// a row's sum, by four neighbouring lanes (all 32 call it)
constexpr int kLanesOfRow = 4, kRowsAtOnce = kThreads / kLanesOfRow;
__device__ __forceinline__ float row_sum(const float* partial, int row, int rows, int per_row) {
  float sum = 0;
  if (row < rows)
    for (int u = threadIdx.x % kLanesOfRow; u < per_row; u += kLanesOfRow) sum += partial[row * per_row + u];
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  return sum + __shfl_xor_sync(0xffffffffu, sum, 2);
}

// ---- the grid's barrier ----
struct Grid {
  unsigned* arrived;
  unsigned target = 0;
};
// all this block wrote is there for those who wait
__device__ __forceinline__ void arrive(Grid& grid) {
  grid.target += gridDim.x;
  sync_consumers();
  if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(grid.arrived) : "memory");
}
__device__ __forceinline__ void wait_for(const Grid& grid) {
  if (threadIdx.x == 0) {
    unsigned seen;
    do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(grid.arrived) : "memory");
    while (seen < grid.target);
  }
  sync_consumers();
}

// ---- inputs of the products, to shared memory ----
__device__ __forceinline__ void load_norm(uint4 (&weight)[kNormPacks], const void* from, int n) {
#pragma unroll
  for (int i = 0; i < kNormPacks; ++i)
    if (const int c = (i * kThreads + threadIdx.x) * 8; c < n)
      weight[i] = __ldg(reinterpret_cast<const uint4*>(static_cast<const bf16*>(from) + c));
}
__device__ __forceinline__ void load_normed(const void* x, const uint4 (&weight)[kNormPacks], int n, float eps,
                                            bf16* to, float* sums) {
  uint4 v[kNormPacks];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kNormPacks; ++i)
    if (const int c = (i * kThreads + threadIdx.x) * 8; c < n) {
      v[i] = __ldcg(reinterpret_cast<const uint4*>(static_cast<const bf16*>(x) + c));
      squares = dot8(v[i], v[i], squares);
    }
  squares = warp_sum(squares);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = squares;
  sync_consumers();
  squares = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) squares += sums[w];
  const float rstd = 1.f / sqrtf(squares / static_cast<float>(n) + eps);
#pragma unroll
  for (int i = 0; i < kNormPacks; ++i)
    if (const int c = (i * kThreads + threadIdx.x) * 8; c < n) {
      const uint32_t u[4] = {v[i].x, v[i].y, v[i].z, v[i].w},
                     w[4] = {weight[i].x, weight[i].y, weight[i].z, weight[i].w};
      uint32_t y[4];
#pragma unroll
      for (int j = 0; j < 4; ++j)
        y[j] = pair(round_through<bf16>(low_of(u[j]) * rstd) * low_of(w[j]),
                    round_through<bf16>(high_of(u[j]) * rstd) * high_of(w[j]));
      *reinterpret_cast<uint4*>(to + c) = make_uint4(y[0], y[1], y[2], y[3]);
    }
  sync_consumers();
}
__device__ __forceinline__ void load_rows(const void* x, int n, bf16* to) {
  for (int c = threadIdx.x * 8; c < n; c += kThreads * 8)
    *reinterpret_cast<uint4*>(to + c) = __ldcg(reinterpret_cast<const uint4*>(static_cast<const bf16*>(x) + c));
  sync_consumers();
}
// the heads' results from those of their splits: a warp per head weighs, then every thread sums
__device__ __forceinline__ void load_merged(const DecodeBlocksLaunch& a, int splits, float* factors, bf16* to) {
  constexpr int kHeads = 4, kQuads = 4;  // at once, so that their loads wait together
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int first = warp; first < a.heads; first += kHeads * kWarps) {
    float2 part[kHeads];  // largest score, sum
#pragma unroll
    for (int i = 0; i < kHeads; ++i) {
      const int h = first + i * kWarps;
      part[i] = make_float2(-INFINITY, 0);
      if (h < a.heads && lane < splits)
        part[i] = __ldcg(reinterpret_cast<const float2*>(a.partial_sums) + h * kMostDecodeSplits + lane);
    }
#pragma unroll
    for (int i = 0; i < kHeads; ++i) {
      const float top = warp_max(part[i].x), factor = lane < splits ? exp2f(part[i].x - top) : 0.f;
      const float sum = warp_sum(factor * part[i].y);
      const int h = first + i * kWarps;
      if (h < a.heads && lane < splits) factors[h * kMostDecodeSplits + lane] = factor / sum;
    }
  }
  sync_consumers();
  const int quads = a.d / 4, all = a.heads * quads;
  for (int first = threadIdx.x; first < all; first += kQuads * kThreads) {
    float4 y[kQuads] = {};
    const float4* from[kQuads];
    const float* factor[kQuads];
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int at = min(first + i * kThreads, all - 1), h = at / quads;
      from[i] = reinterpret_cast<const float4*>(a.partial) + int64_t{h} * kMostDecodeSplits * quads + at % quads;
      factor[i] = factors + h * kMostDecodeSplits;
    }
#pragma unroll 3
    for (int s = 0; s < splits; ++s)
#pragma unroll
      for (int i = 0; i < kQuads; ++i) {
        if (first + i * kThreads >= all) continue;
        const float4 v = __ldcg(from[i] + s * quads);
        const float f = factor[i][s];
        y[i].x = fmaf(v.x, f, y[i].x), y[i].y = fmaf(v.y, f, y[i].y);
        y[i].z = fmaf(v.z, f, y[i].z), y[i].w = fmaf(v.w, f, y[i].w);
      }
#pragma unroll
    for (int i = 0; i < kQuads; ++i)
      if (first + i * kThreads < all)
        *reinterpret_cast<uint2*>(to + (first + i * kThreads) * 4) =
            make_uint2(pair(y[i].x, y[i].y), pair(y[i].z, y[i].w));
  }
  sync_consumers();
}

// ---- attention of a split ----
// Each warp walks eight keys of every page on its own: no barrier stands in the loop.
constexpr int kKeys = kKeyTile / kWarps;
struct Heads {
  bf16 q[kMostGroup][kMostHead], k[kMostHead], v[kMostHead];  // this head's queries, its new key and value
  float weight[kWarps][kKeys][kMostGroup], factor[kWarps][kMostGroup];
  float2 sums[kWarps][kMostGroup];  // largest score, sum
};
// head norm (weight or null) and rotation of one head, by a warp
__device__ __forceinline__ void turn(const DecodeBlocksLaunch& a, int at, const void* norm, bf16* to) {
  const int lane = threadIdx.x % 32, half = a.d / 2, c = lane * 2;
  float2 low = {}, high = {};
  float squares = 0;
  if (c < half) {
    low = fresh_pair(a.qkv, at + c);
    high = fresh_pair(a.qkv, at + c + half);
    squares = low.x * low.x + low.y * low.y + high.x * high.x + high.y * high.y;
  }
  if (norm) {
    const float rstd = 1.f / sqrtf(warp_sum(squares) / static_cast<float>(a.d) + a.eps);
    if (c < half) {
      const float2 w = pair_of(norm, c), u = pair_of(norm, c + half);
      const auto scaled = [&](float v, float by) { return round_through<bf16>(round_through<bf16>(v * rstd) * by); };
      low = make_float2(scaled(low.x, w.x), scaled(low.y, w.y));
      high = make_float2(scaled(high.x, u.x), scaled(high.y, u.y));
    }
  }
  if (c < half) {
    const float2 cs = *reinterpret_cast<const float2*>(a.cos + c), sn = *reinterpret_cast<const float2*>(a.sin + c);
    *reinterpret_cast<uint32_t*>(to + c) = pair(low.x * cs.x - high.x * sn.x, low.y * cs.y - high.y * sn.y);
    *reinterpret_cast<uint32_t*>(to + c + half) = pair(high.x * cs.x + low.x * sn.x, high.y * cs.y + low.y * sn.y);
  }
}

template <int kD>
__device__ __forceinline__ void attend(const DecodeBlocksLaunch& a, const DecodeBlockLaunch& b, const Part& p,
                                       Ring& ring, Heads& s, float* scratch) {
  constexpr int kEach = kD / 32;  // features of a lane
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = a.heads / a.kv_heads;
  const int q_width = a.heads * kD, kv_width = a.kv_heads * kD;
  const bool has_new = p.split == p.splits - 1;
#pragma unroll 1
  for (int item = warp; item <= group + 1; item += kWarps) {
    const bool is_q = item < group;
    if (!is_q && !has_new) continue;
    if (item <= group) {
      turn(a, is_q ? (p.head * group + item) * kD : q_width + p.head * kD, is_q ? b.q_norm : b.k_norm,
           is_q ? s.q[item] : s.k);
    } else {
      for (int c = lane * 2; c < kD; c += 64)
        *reinterpret_cast<uint32_t*>(s.v + c) = __ldcg(
            reinterpret_cast<const uint32_t*>(static_cast<const bf16*>(a.qkv) + q_width + kv_width + p.head * kD + c));
    }
  }
  sync_consumers();
  const int last = p.end - 1;  // the new key
  if (has_new && *a.slot >= 0 && threadIdx.x < kD / 2) {
    const int c = threadIdx.x * 2;
    const int64_t to = ((*a.slot / kKeyTile * a.kv_heads + p.head) * kKeyTile + *a.slot % kKeyTile) * kD + c;
    *reinterpret_cast<uint32_t*>(static_cast<bf16*>(b.k_pages) + to) = *reinterpret_cast<const uint32_t*>(s.k + c);
    *reinterpret_cast<uint32_t*>(static_cast<bf16*>(b.v_pages) + to) = *reinterpret_cast<const uint32_t*>(s.v + c);
  }

  // Queries as the a operand. The inner dimension is taken in another order, the same for both operands: lane t % 4 of
  // the pair of steps i holds the eight features 32 i + 8 (t % 4) .. + 7, which lie together.
  uint4 q[kD / 32];
#pragma unroll
  for (int i = 0; i < kD / 32; ++i) {
    q[i] = make_uint4(0, 0, 0, 0);
    if (lane / 4 < group) q[i] = *reinterpret_cast<const uint4*>(&s.q[lane / 4][32 * i + lane % 4 * 8]);
  }
  const float scale = a.scale * kLog2e;
  float top = -INFINITY, sum = 0;  // of head lane / 4, over this warp's keys and this lane's two of eight
  float out[kMostGroup][kEach] = {};
#pragma unroll 1
  for (int tile = p.begin_tile; tile < p.end_tile; ++tile) {
    const int first = tile * kKeyTile + warp * kKeys;  // key
    const uint32_t row = warp * kKeys * kD * 2;
    const bool patch = has_new && last >= first && last < first + kKeys;  // the page in the ring may lack the new key
    const uint32_t patched = row + (last - first) * kD * 2 + lane * kEach * 2;
    const uint32_t keys = take(ring);
    if (patch) {
#pragma unroll
      for (int i = 0; i < kEach; i += 2)
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(keys + patched + i * 2),
                     "r"(*reinterpret_cast<const uint32_t*>(s.k + lane * kEach + i))
                     : "memory");
      __syncwarp();
    }
    float even[4] = {}, odd[4] = {};
#pragma unroll
    for (int i = 0; i < kD / 32; ++i) {
      const uint4 k = load_shared(keys + row + lane / 4 * kD * 2 + (32 * i + lane % 4 * 8) * 2);
      const uint32_t x[4] = {q[i].x, 0, q[i].y, 0}, y[4] = {q[i].z, 0, q[i].w, 0};
      multiply_add(even, x, k.x, k.y);
      multiply_add(odd, y, k.z, k.w);
    }
    if (patch) asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    give_back(ring);
    float z[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int key = first + lane % 4 * 2 + i;
      z[i] = key >= p.begin && key < p.end ? (even[i] + odd[i]) * scale : -INFINITY;
    }
    float peak = fmaxf(top, fmaxf(z[0], z[1]));
    peak = fmaxf(peak, __shfl_xor_sync(0xffffffffu, peak, 1));
    peak = fmaxf(peak, __shfl_xor_sync(0xffffffffu, peak, 2));
    const float shift = peak == -INFINITY ? 0.f : peak, factor = exp2f(top - shift);
    top = peak;
    z[0] = exp2f(z[0] - shift), z[1] = exp2f(z[1] - shift);
    sum = sum * factor + (z[0] + z[1]);
    s.weight[warp][lane % 4 * 2][lane / 4] = z[0];
    s.weight[warp][lane % 4 * 2 + 1][lane / 4] = z[1];
    if (lane % 4 == 0) s.factor[warp][lane / 4] = factor;
    __syncwarp();
#pragma unroll
    for (int h = 0; h < kMostGroup; ++h)
      if (h < group) {
        const float f = s.factor[warp][h];
#pragma unroll
        for (int i = 0; i < kEach; ++i) out[h][i] *= f;
      }
    const uint32_t values = take(ring);
    if (patch) {
#pragma unroll
      for (int i = 0; i < kEach; i += 2)
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(values + patched + i * 2),
                     "r"(*reinterpret_cast<const uint32_t*>(s.v + lane * kEach + i))
                     : "memory");
      __syncwarp();
    }
    const int n = min(p.end - first, kKeys);  // behind the last key lies anything
#pragma unroll
    for (int key = 0; key < kKeys; ++key) {
      if (key >= n) break;
      float v[kEach];
#pragma unroll
      for (int i = 0; i < kEach; i += 2) {
        uint32_t u;
        asm volatile("ld.shared.u32 %0, [%1];"
                     : "=r"(u)
                     : "r"(values + row + key * kD * 2 + (lane * kEach + i) * 2)
                     : "memory");
        v[i] = low_of(u), v[i + 1] = high_of(u);
      }
      const float4 w = *reinterpret_cast<const float4*>(s.weight[warp][key]);
      const auto add = [&](int h, float by) {
#pragma unroll
        for (int i = 0; i < kEach; ++i) out[h][i] = fmaf(by, v[i], out[h][i]);
      };
      add(0, w.x), add(1, w.y);
      if (group > 2) add(2, w.z), add(3, w.w);
      if (group > 4) {
        const float4 u = *reinterpret_cast<const float4*>(s.weight[warp][key] + 4);
        add(4, u.x), add(5, u.y), add(6, u.z), add(7, u.w);
      }
    }
    if (patch) asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    give_back(ring);  // and no lane writes the next weights before all have read these
  }
  // the warps' parts, in order
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  sum += __shfl_xor_sync(0xffffffffu, sum, 2);
  if (lane % 4 == 0) s.sums[warp][lane / 4] = make_float2(top, sum);
#pragma unroll
  for (int h = 0; h < kMostGroup; ++h)
    if (h < group)
#pragma unroll
      for (int i = 0; i < kEach; ++i) scratch[(warp * group + h) * kD + lane * kEach + i] = out[h][i];
  sync_consumers();
#pragma unroll 1
  for (int i = threadIdx.x; i < group * kD; i += kThreads) {
    const int h = i / kD;
    float best = -INFINITY, y = 0, weight = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) best = fmaxf(best, s.sums[w][h].x);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float f = exp2f(s.sums[w][h].x - best);  // some key is seen: best is a number
      weight = fmaf(f, s.sums[w][h].y, weight);
      y = fmaf(f, scratch[w * group * kD + i], y);
    }
    const int64_t at = int64_t{p.head * group + h} * kMostDecodeSplits + p.split;
    a.partial[at * kD + i % kD] = y;
    if (i % kD == 0) reinterpret_cast<float2*>(a.partial_sums)[at] = make_float2(best, weight);
  }
}

__global__ void __launch_bounds__(kThreads + 32, 1) decode_blocks_kernel(const __grid_constant__ DecodeBlocksLaunch a) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ __align__(16) Heads heads;
  __shared__ __align__(8) uint64_t barriers[2 * kMostStages];
  __shared__ float sums[kWarps];
  const int q = a.heads * a.d, kv = a.kv_heads * a.d;
  bf16* const x = reinterpret_cast<bf16*>(shared + a.stages * kStageBytes);
  const int widest = max(max(a.hidden, q), a.n_inner);
  float* const scratch = reinterpret_cast<float*>(x + widest);

  Ring ring{shared_address(shared), shared_address(barriers), shared_address(barriers + kMostStages), a.stages};
  if (threadIdx.x == 0) {
    for (int i = 0; i < a.stages; ++i) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(ring.full + i * 8) : "memory");
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(ring.empty + i * 8), "n"(kWarps) : "memory");
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x >= kThreads) {
    if (threadIdx.x == kThreads) produce(a, ring);
    return;
  }

  Grid grid{a.arrived};
  const int keys = a.kv_len[0];
  const Rows qkv_rows = rows_of(q + 2 * kv), inner_rows = rows_of(a.n_inner), hidden_rows = rows_of(a.hidden);
  const void* residual = a.x;
  uint4 norm[kNormPacks];
  load_norm(norm, a.block[0].input_norm, a.hidden);
  // A phase's code runs once a layer: it must be small, or it is fetched anew each time. So the four products are one
  // loop, never unrolled.
#pragma unroll 1
  for (int step = 0; step < 4 * a.n; ++step) {
    const DecodeBlockLaunch& b = a.block[step / 4];
    const int product = step % 4;  // q k v, o, gate up, down
    const Part part = part_of(a, b.window, keys);
    if (product % 2 == 0)
      load_normed(residual, norm, a.hidden, a.eps, x, sums);
    else if (product == 1)
      load_merged(a, part.splits, scratch, x);
    else
      load_rows(a.inner, a.n_inner, x);
    const int k = product == 1 ? q : product == 3 ? a.n_inner : a.hidden, per_row = k / kSegment;
    const int slices = product == 0 ? 3 : product == 2 ? 2 : 1;
    int base = 0;
#pragma unroll 1
    for (int i = 0; i < slices; ++i) {
      const int begin = i == 0 ? 0 : i == 1 ? q : q + kv;
      const int n = product == 0   ? slice_of(nullptr, begin, i == 0 ? q : kv, qkv_rows, 0).n
                    : product == 2 ? inner_rows.n
                                   : hidden_rows.n;
      multiply(ring, n, per_row, x, scratch, base);
    }
    sync_consumers();
    const Rows rows = product == 0 ? qkv_rows : product == 2 ? inner_rows : hidden_rows;
    const void* bias = product == 1 ? b.o_bias : product == 2 ? b.gate_bias : b.down_bias;
#pragma unroll 1
    for (int first = 0; first < rows.n; first += kRowsAtOnce) {
      const int r = first + threadIdx.x / kLanesOfRow, row = rows.first + r;
      float y = row_sum(scratch, r, rows.n, per_row), up = 0;
      if (product == 2) up = row_sum(scratch + rows.n * per_row, r, rows.n, per_row);
      if (r >= rows.n || threadIdx.x % kLanesOfRow) continue;
      void* to = a.y;
      if (product == 0) {
        const void* with = row < q ? b.q_bias : row < q + kv ? b.k_bias : b.v_bias;
        if (with) y += value_of(with, row < q ? row : row < q + kv ? row - q : row - q - kv);
        to = a.qkv;
      } else {
        if (bias) y += value_of(bias, row);
        if (product == 2) {
          if (b.up_bias) up += value_of(b.up_bias, row);
          y = activated(a.activation, round_through<bf16>(y)) * round_through<bf16>(up);
          to = a.inner;
        } else {
          y = round_through<bf16>(y) + __bfloat162float(fresh(residual, row));
        }
      }
      static_cast<bf16*>(to)[row] = __float2bfloat16_rn(y);
    }
    if (product == 1) residual = a.y;
    if (step + 1 == 4 * a.n) break;
    arrive(grid);
    if (product % 2) load_norm(norm, product == 1 ? b.post_norm : a.block[step / 4 + 1].input_norm, a.hidden);
    wait_for(grid);
    if (product > 0) continue;
    if (part.begin_tile < part.end_tile) {
      if (a.d == 128)
        attend<128>(a, b, part, ring, heads, scratch);
      else
        attend<64>(a, b, part, ring, heads, scratch);
    }
    arrive(grid);
    wait_for(grid);
  }
#endif
}

int64_t most_of(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t input_bytes(const DecodeBlocksShape& s) {
  return 2 * most_of(most_of(s.hidden, int64_t{s.heads} * s.d), s.inner);
}
int64_t scratch_bytes(const DecodeBlocksShape& s, int blocks) {
  // sums of the largest share of rows; parts of the attention; factors of the merge
  const auto sums = [&](int64_t rows, int64_t k) { return (rows / blocks + 1) * (k / kSegment) * 4; };
  int64_t bytes =
      most_of(sums(int64_t{s.heads + 2 * s.kv_heads} * s.d, s.hidden), sums(s.hidden, int64_t{s.heads} * s.d));
  bytes = most_of(bytes, most_of(2 * sums(s.inner, s.hidden), sums(s.hidden, s.inner)));
  bytes = most_of(bytes, int64_t{kWarps} * (s.heads / s.kv_heads) * s.d * 4);
  return most_of(bytes, int64_t{s.heads} * kMostDecodeSplits * 4);
}

}  // namespace

int decode_blocks_stages(const DecodeBlocksShape& s, int multiprocessors) {
  const int64_t q = int64_t{s.heads} * s.d;
  if (s.hidden % kSegment || s.inner % kSegment || q % kSegment || s.hidden > kNormPacks * kThreads * 8) return 0;
  if ((s.d != 64 && s.d != 128) || s.heads % s.kv_heads || s.heads / s.kv_heads > kMostGroup) return 0;
  if (s.kv_heads > multiprocessors) return 0;
  const int64_t left = kSharedBytes - kStaticBytes - input_bytes(s) - scratch_bytes(s, multiprocessors);
  const int64_t stages = left / kStageBytes;
  return stages < 4 ? 0 : static_cast<int>(stages < kMostStages ? stages : kMostStages);
}
int64_t decode_blocks_workspace(const DecodeBlocksShape& s) {
  const int64_t qkv = int64_t{s.heads + 2 * s.kv_heads} * s.d * 2, inner = int64_t{s.inner} * 2;
  return 256 + (qkv + 255) / 256 * 256 + (inner + 255) / 256 * 256 +
         int64_t{s.heads} * kMostDecodeSplits * (s.d + 2) * 4;
}

void launch_decode_blocks(StreamHandle stream, DecodeBlocksLaunch& a, void* workspace, int multiprocessors) {
  const DecodeBlocksShape shape{a.hidden, a.n_inner, a.heads, a.kv_heads, a.d};
  a.stages = decode_blocks_stages(shape, multiprocessors);
  char* at = static_cast<char*>(workspace);
  const auto part = [&](int64_t bytes) {
    char* p = at;
    at += (bytes + 255) / 256 * 256;
    return p;
  };
  a.arrived = reinterpret_cast<unsigned*>(part(4));
  a.qkv = part(int64_t{a.heads + 2 * a.kv_heads} * a.d * 2);
  a.inner = part(int64_t{a.n_inner} * 2);
  a.partial = reinterpret_cast<float*>(part(int64_t{a.heads} * kMostDecodeSplits * a.d * 4));
  a.partial_sums = reinterpret_cast<float*>(at);
  cudaMemsetAsync(a.arrived, 0, 4, stream);  // a failure is found by check_launch()

  static SharedLimit limit;
  const auto bytes =
      static_cast<size_t>(a.stages * kStageBytes + input_bytes(shape) + scratch_bytes(shape, multiprocessors));
  allow_shared(limit, reinterpret_cast<const void*>(decode_blocks_kernel), kSharedBytes - kStaticBytes);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(multiprocessors));
  config.blockDim = dim3(kThreads + 32);
  config.dynamicSmemBytes = bytes;
  config.stream = stream;
  cudaLaunchAttribute together{};  // all blocks run at the same time, or the launch fails
  together.id = cudaLaunchAttributeCooperative;
  together.val.cooperative = 1;
  config.attrs = &together;
  config.numAttrs = 1;
  cudaLaunchKernelEx(&config, decode_blocks_kernel, a);
}

}  // namespace pmetal::cuda
