// All blocks of a decoder for one token, in one launch: a block of threads on each multiprocessor walks the layers in
// five phases:
//   1 norm · q k v    2 head norms, rope, append, attention over a split, merge of the splits    3 o + residual
//   4 norm · gate up · act    5 down + residual
// One warp (the producer) streams everything that does not depend on the step into a ring of shared memory, in the
// order of use and across phases and layers: this multiprocessor's rows of the weights, and the pages of its keys and
// values. It never waits for other multiprocessors, so the memory is kept busy while the other eight warps compute,
// wait and exchange a few kilobytes through L2. Bound: the bytes of weights, keys and values, read once; below that the
// latency of five phases.
//
// A multiprocessor owns a contiguous range of rows of each weight, which is one contiguous range of bytes; stages are
// 16 KiB of it, or a page of keys or values of one head. Sums of 256 columns go to shared memory and are added up per
// row in order: the same bits every time.
#include "backend/cuda/attention.cuh"
#include "backend/cuda/decode_blocks.h"
#include "backend/cuda/glu.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kStageBytes = 16 << 10, kMostStages = 13;
constexpr int kSegment = 256, kSegmentsOfStage = kStageBytes / 2 / kSegment;
constexpr int kMostGroup = 8, kMostHead = 128, kNormPacks = 4;  // hidden <= 4 · 8 · 256
constexpr int kMostOwn = 256;                                   // rows of the residual stream of a block
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
// ---- exchange between multiprocessors: words of four bytes with the number of the layer beside them, written and read
// as eight. Who needs a word reads it until the number is there: no barrier, no fence, one trip through L2. A word is
// written again only after everybody has read what it held: between two writes of a kind lie whole exchanges, of which
// every block writes a part.
__device__ __forceinline__ void put_word(void* words, int64_t i, uint32_t value, uint32_t epoch) {
  asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(static_cast<uint2*>(words) + i), "r"(value),
               "r"(epoch)
               : "memory");
}
// words 2 pair, 2 pair + 1 as they are
__device__ __forceinline__ uint4 peek_words(const void* words, int64_t pair) {
  uint4 v;
  asm volatile("ld.volatile.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(static_cast<const uint2*>(words) + 2 * pair)
               : "memory");
  return v;
}
__device__ __forceinline__ uint32_t get_word(const void* words, int64_t i, uint32_t epoch) {
  uint32_t value, seen;
  do
    asm volatile("ld.volatile.global.v2.u32 {%0,%1}, [%2];"
                 : "=r"(value), "=r"(seen)
                 : "l"(static_cast<const uint2*>(words) + i)
                 : "memory");
  while (seen != epoch);
  return value;
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
// every thread for itself: racecheck does not see that __syncwarp() orders its reads before another lane's arrival
__device__ __forceinline__ void give_back(Ring& ring) {
  __syncwarp();
  arrive(ring.empty + ring.stage * 8);
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
// in pairs, as they are exchanged
__device__ __forceinline__ Rows rows_of(int all) {
  const int first = static_cast<int>(int64_t{all / 2} * blockIdx.x / gridDim.x) * 2;
  return {first, static_cast<int>(int64_t{all / 2} * (blockIdx.x + 1) / gridDim.x) * 2 - first};
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
// The slice's next rows with x, on the tensor cores: eight segments are the columns of b, and row i of a is the part of
// x that meets segment i, so the sums are the diagonal of c. Four warps take a stage, the other four the next one. A
// lane loads eight neighbouring features of its segment at once, for the two operands alike; odd segments take the
// blocks of 32 in another order, which spreads the loads over the banks. Sums go to partial[base ..]; base goes on.
__device__ __forceinline__ void multiply(Ring& ring, int rows, int per_row, const bf16* x, float* partial, int& base) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, all = rows * per_row, mine = lane / 4;
  const int stages = (all + kSegmentsOfStage - 1) / kSegmentsOfStage;
  const int in_stage = warp % 4 * 8 + mine;  // this lane's segment
  const uint32_t lane_at = lane % 4 * 16, w_at = in_stage * kSegment * 2 + lane_at;
  const uint32_t x_address = shared_address(x) + lane_at;
  const int step = 2 * kSegmentsOfStage % per_row;
  int segment = warp / 4 * kSegmentsOfStage + in_stage, column = segment % per_row;
#pragma unroll 1
  for (int c = 0; c < stages; c += 2) {
    uint32_t from = take(ring);
    const bool is_second = warp >= 4, is_idle = is_second && c + 1 >= stages;
    if (is_second) {
      give_back(ring);
      if (!is_idle) from = take(ring);
    }
    if (!is_idle) {
      float even[4] = {}, odd[4] = {};
#pragma unroll
      for (int k = 0; k < kSegment / 32; ++k) {
        const uint32_t at = (k ^ (mine & 1)) * 64;
        const uint4 w = load_shared(from + w_at + at), v = load_shared(x_address + column * kSegment * 2 + at);
        const uint32_t first[4] = {v.x, 0, v.y, 0}, second[4] = {v.z, 0, v.w, 0};
        multiply_add(even, first, w.x, w.y);
        multiply_add(odd, second, w.z, w.w);
      }
      give_back(ring);
      if (lane % 4 == mine / 2 && segment < all)
        partial[base + segment] = mine & 1 ? even[1] + odd[1] : even[0] + odd[0];
    }
    if (!is_second && c + 1 < stages) {
      take(ring);
      give_back(ring);
    }
    segment += 2 * kSegmentsOfStage;
    column += step;
    if (column >= per_row) column -= per_row;
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

// ---- inputs of the products, to shared memory ----
constexpr int kWordsOfThread = 4;  // pairs of words at once
__device__ __forceinline__ void load_norm(uint4 (&weight)[kNormPacks], const void* from, int n) {
#pragma unroll
  for (int i = 0; i < kNormPacks; ++i)
    if (const int c = (i * kThreads + threadIdx.x) * 8; c < n)
      weight[i] = __ldg(reinterpret_cast<const uint4*>(static_cast<const bf16*>(from) + c));
}
// n features (a multiple of 256), where they are there
__device__ __forceinline__ void load_rows(const void* words, int n, uint32_t epoch, bf16* to) {
#pragma unroll 1
  for (int first = threadIdx.x; first < n / 4; first += kWordsOfThread * kThreads) {
    uint4 v[kWordsOfThread];
#pragma unroll
    for (int i = 0; i < kWordsOfThread; ++i)
      if (first + i * kThreads < n / 4) v[i] = peek_words(words, first + i * kThreads);
#pragma unroll
    for (int i = 0; i < kWordsOfThread; ++i) {
      const int pair = first + i * kThreads;
      if (pair >= n / 4) continue;
      while (v[i].y != epoch || v[i].w != epoch) v[i] = peek_words(words, pair);
      *reinterpret_cast<uint2*>(to + pair * 4) = make_uint2(v[i].x, v[i].z);
    }
  }
  sync_consumers();
}
// what lies in shared memory, normalised in place; weights as load_norm gave them
__device__ __forceinline__ void normalise(const uint4 (&weight)[kNormPacks], int n, float eps, bf16* x, float* sums) {
  uint4 v[kNormPacks];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kNormPacks; ++i)
    if (const int c = (i * kThreads + threadIdx.x) * 8; c < n) {
      v[i] = *reinterpret_cast<const uint4*>(x + c);
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
      *reinterpret_cast<uint4*>(x + c) = make_uint4(y[0], y[1], y[2], y[3]);
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
__device__ __forceinline__ void turn(const DecodeBlocksLaunch& a, int at, const void* norm, uint32_t epoch, bf16* to) {
  const int lane = threadIdx.x % 32, half = a.d / 2, c = lane * 2;
  float2 low = {}, high = {};
  float squares = 0;
  if (c < half) {
    const uint32_t first = get_word(a.qkv, (at + c) / 2, epoch), second = get_word(a.qkv, (at + c + half) / 2, epoch);
    low = make_float2(low_of(first), high_of(first));
    high = make_float2(low_of(second), high_of(second));
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
                                       Ring& ring, Heads& s, uint32_t epoch, float* scratch) {
  constexpr int kEach = kD / 32;  // features of a lane
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = a.heads / a.kv_heads;
  const int q_width = a.heads * kD, kv_width = a.kv_heads * kD;
  const bool has_new = p.split == p.splits - 1;
#pragma unroll 1
  for (int item = warp; item <= group + 1; item += kWarps) {
    const bool is_q = item < group;
    if (!is_q && !has_new) continue;
    if (item <= group) {
      turn(a, is_q ? (p.head * group + item) * kD : q_width + p.head * kD, is_q ? b.q_norm : b.k_norm, epoch,
           is_q ? s.q[item] : s.k);
    } else {
      for (int c = lane * 2; c < kD; c += 64)
        *reinterpret_cast<uint32_t*>(s.v + c) = get_word(a.qkv, (q_width + kv_width + p.head * kD + c) / 2, epoch);
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
    put_word(a.partial, at * kD + i % kD, __float_as_uint(y), epoch);
    if (i % kD == 0) {
      put_word(a.partial_sums, 2 * at, __float_as_uint(best), epoch);
      put_word(a.partial_sums, 2 * at + 1, __float_as_uint(weight), epoch);
    }
  }
  // each split's block merges its share of the head's features, in the order of the splits
  const int pairs = group * kD / 2, end = pairs * (p.split + 1) / p.splits;
#pragma unroll 1
  for (int i = pairs * p.split / p.splits + threadIdx.x; i < end; i += kThreads) {
    const int h = p.head * group + i / (kD / 2), c = i % (kD / 2);
    float best = -INFINITY, weight = 0, y0 = 0, y1 = 0;
#pragma unroll 1
    for (int first = 0; first < p.splits; first += 4) {
      uint4 value[4], sums[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int64_t at = int64_t{h} * kMostDecodeSplits + min(first + k, p.splits - 1);
        value[k] = peek_words(a.partial, at * (kD / 2) + c);
        sums[k] = peek_words(a.partial_sums, at);
      }
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (first + k >= p.splits) break;
        const int64_t at = int64_t{h} * kMostDecodeSplits + first + k;
        while (value[k].y != epoch || value[k].w != epoch) value[k] = peek_words(a.partial, at * (kD / 2) + c);
        while (sums[k].y != epoch || sums[k].w != epoch) sums[k] = peek_words(a.partial_sums, at);
        const float peak = fmaxf(best, __uint_as_float(sums[k].x));
        const float old = exp2f(best - peak), now = exp2f(__uint_as_float(sums[k].x) - peak);
        weight = weight * old + now * __uint_as_float(sums[k].z);
        y0 = y0 * old + now * __uint_as_float(value[k].x);
        y1 = y1 * old + now * __uint_as_float(value[k].z);
        best = peak;
      }
    }
    const float inverse = 1.f / weight;
    put_word(a.merged, h * (kD / 2) + c, pair(y0 * inverse, y1 * inverse), epoch);
  }
}

__global__ void __launch_bounds__(kThreads + 32, 1) decode_blocks_kernel(const __grid_constant__ DecodeBlocksLaunch a) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ __align__(16) Heads heads;
  __shared__ __align__(8) uint64_t barriers[2 * kMostStages];
  __shared__ float sums[kWarps];
  __shared__ bf16 own[kMostOwn];  // the residual stream at this block's rows
  const int q = a.heads * a.d, kv = a.kv_heads * a.d;
  bf16* const x = reinterpret_cast<bf16*>(shared + a.stages * kStageBytes);
  const int widest = max(max(a.hidden, q), a.n_inner);
  float* const scratch = reinterpret_cast<float*>(x + widest);

  Ring ring{shared_address(shared), shared_address(barriers), shared_address(barriers + kMostStages), a.stages};
  if (threadIdx.x == 0) {
    for (int i = 0; i < a.stages; ++i) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(ring.full + i * 8) : "memory");
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(ring.empty + i * 8), "n"(kThreads) : "memory");
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x >= kThreads) {
    if (threadIdx.x == kThreads) produce(a, ring);
    return;
  }

  const int keys = a.kv_len[0];
  const Rows qkv_rows = rows_of(q + 2 * kv), inner_rows = rows_of(a.n_inner), hidden_rows = rows_of(a.hidden);
  for (int r = threadIdx.x; r < hidden_rows.n; r += kThreads)
    own[r] = static_cast<const bf16*>(a.x)[hidden_rows.first + r];
  uint4 norm[kNormPacks];
  load_norm(norm, a.block[0].input_norm, a.hidden);
  // A phase's code runs once a layer: it must be small, or it is fetched anew each time. So the four products are one
  // loop, never unrolled.
#pragma unroll 1
  for (int step = 0; step < 4 * a.n; ++step) {
    const DecodeBlockLaunch& b = a.block[step / 4];
    const int product = step % 4;  // q k v, o, gate up, down
    const uint32_t epoch = step / 4 + 1;
    const int k = product == 1 ? q : product == 3 ? a.n_inner : a.hidden, per_row = k / kSegment;
    if (step == 0) {
      for (int c = threadIdx.x * 8; c < a.hidden; c += kThreads * 8)
        *reinterpret_cast<uint4*>(x + c) = *reinterpret_cast<const uint4*>(static_cast<const bf16*>(a.x) + c);
      sync_consumers();
    } else {
      load_rows(product == 0   ? a.after_down
                : product == 1 ? a.merged
                : product == 2 ? a.after_attention
                               : a.inner,
                k, product == 0 ? epoch - 1 : epoch, x);
    }
    if (product % 2 == 0) normalise(norm, a.hidden, a.eps, x, sums);
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
      const bool exists = r < rows.n;
      if (exists) {
        if (product == 0) {
          const void* with = row < q ? b.q_bias : row < q + kv ? b.k_bias : b.v_bias;
          if (with) y += value_of(with, row < q ? row : row < q + kv ? row - q : row - q - kv);
        } else {
          if (bias) y += value_of(bias, row);
          if (product == 2) {
            if (b.up_bias) up += value_of(b.up_bias, row);
            y = activated(a.activation, round_through<bf16>(y)) * round_through<bf16>(up);
          } else {
            y = round_through<bf16>(y) + __bfloat162float(own[r]);
          }
        }
      }
      __syncwarp();
      const bf16 result = __float2bfloat16_rn(y);
      const uint32_t bits = __bfloat16_as_ushort(result), next = __shfl_down_sync(0xffffffffu, bits, kLanesOfRow);
      if (!exists || threadIdx.x % kLanesOfRow) continue;
      if (product % 2) own[r] = result;
      if (step + 1 == 4 * a.n)
        static_cast<bf16*>(a.y)[row] = result;
      else if (r % 2 == 0)  // rows come in pairs
        put_word(product == 0   ? a.qkv
                 : product == 1 ? a.after_attention
                 : product == 2 ? a.inner
                                : a.after_down,
                 row / 2, bits | next << 16, epoch);
    }
    if (product % 2 && step + 1 < 4 * a.n)
      load_norm(norm, product == 1 ? b.post_norm : a.block[step / 4 + 1].input_norm, a.hidden);
    if (product > 0) continue;
    const Part part = part_of(a, b.window, keys);
    if (part.begin_tile < part.end_tile) {
      if (a.d == 128)
        attend<128>(a, b, part, ring, heads, epoch, scratch);
      else
        attend<64>(a, b, part, ring, heads, epoch, scratch);
    }
  }
#endif
}

int64_t most_of(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t least_of(int64_t a, int64_t b) { return a < b ? a : b; }
// every block has a pair of rows of each product: who writes has read what came before
int blocks_of(const DecodeBlocksShape& s, int multiprocessors) {
  return static_cast<int>(least_of(multiprocessors, least_of(s.hidden, s.inner) / 2));
}
int64_t input_bytes(const DecodeBlocksShape& s) {
  return 2 * most_of(most_of(s.hidden, int64_t{s.heads} * s.d), s.inner);
}
int64_t scratch_bytes(const DecodeBlocksShape& s, int blocks) {
  // sums of the largest share of rows; parts of the attention
  const auto sums = [&](int64_t rows, int64_t k) { return (rows / blocks + 2) * (k / kSegment) * 4; };
  int64_t bytes =
      most_of(sums(int64_t{s.heads + 2 * s.kv_heads} * s.d, s.hidden), sums(s.hidden, int64_t{s.heads} * s.d));
  bytes = most_of(bytes, most_of(2 * sums(s.inner, s.hidden), sums(s.hidden, s.inner)));
  return most_of(bytes, int64_t{kWarps} * (s.heads / s.kv_heads) * s.d * 4);
}

}  // namespace

int decode_blocks_stages(const DecodeBlocksShape& s, int multiprocessors) {
  const int64_t q = int64_t{s.heads} * s.d;
  if (s.hidden % kSegment || s.inner % kSegment || q % kSegment || s.hidden > kNormPacks * kThreads * 8) return 0;
  if ((s.d != 64 && s.d != 128) || s.heads % s.kv_heads || s.heads / s.kv_heads > kMostGroup) return 0;
  const int blocks = blocks_of(s, multiprocessors);
  if (s.kv_heads > blocks || s.hidden / blocks + 2 > kMostOwn) return 0;
  const int64_t left = kSharedBytes - kStaticBytes - input_bytes(s) - scratch_bytes(s, blocks);
  const int64_t stages = left / kStageBytes;
  return stages < 4 ? 0 : static_cast<int>(stages < kMostStages ? stages : kMostStages);
}

namespace {

// the words that are exchanged, in order: qkv, after attention, inner, after down, merged, partial, their sums
constexpr int kWordKinds = 7;
void word_counts(const DecodeBlocksShape& s, int64_t (&counts)[kWordKinds]) {
  const int64_t splits = int64_t{s.heads} * kMostDecodeSplits;
  const int64_t all[] = {int64_t{s.heads + 2 * s.kv_heads} * s.d / 2,
                         s.hidden / 2,
                         s.inner / 2,
                         s.hidden / 2,
                         int64_t{s.heads} * s.d / 2,
                         splits * s.d,
                         splits * 2};
  for (int i = 0; i < kWordKinds; ++i) counts[i] = all[i];
}

}  // namespace

int64_t decode_blocks_workspace(const DecodeBlocksShape& s) {
  int64_t counts[kWordKinds], bytes = 0;
  word_counts(s, counts);
  for (int64_t n : counts) bytes += n * 8;
  return bytes;
}

void launch_decode_blocks(StreamHandle stream, DecodeBlocksLaunch& a, void* workspace, int multiprocessors) {
  const DecodeBlocksShape shape{a.hidden, a.n_inner, a.heads, a.kv_heads, a.d};
  const int blocks = blocks_of(shape, multiprocessors);
  a.stages = decode_blocks_stages(shape, multiprocessors);
  int64_t counts[kWordKinds];
  word_counts(shape, counts);
  void** const places[] = {&a.qkv, &a.after_attention, &a.inner, &a.after_down, &a.merged, &a.partial, &a.partial_sums};
  char* at = static_cast<char*>(workspace);
  for (int i = 0; i < kWordKinds; ++i) {
    *places[i] = at;
    at += counts[i] * 8;
  }
  // layers are numbered from 1; a failure is found by check_launch()
  cudaMemsetAsync(workspace, 0, static_cast<size_t>(decode_blocks_workspace(shape)), stream);

  static SharedLimit limit;
  const auto bytes = static_cast<size_t>(a.stages * kStageBytes + input_bytes(shape) + scratch_bytes(shape, blocks));
  allow_shared(limit, reinterpret_cast<const void*>(decode_blocks_kernel), kSharedBytes - kStaticBytes);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
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
