// Products of a few rows with bf16 weights, and what stands around them in a decode step, in one launch:
//   h = x, or rms_norm(x)                       [m, k], m <= 16, once per block, in shared memory
//   y_p = h · W_pᵀ (+ bias_p)                   up to three weights that share the input, or
//   y = act(h · W_0ᵀ) · (h · W_1ᵀ), or          gate and up
//   y = residual + h · W_0ᵀ
// Bound: the bytes of W, read once. A block owns 8 rows of W (of each of two for gate and up) at a time and its warps
// share the inner dimension: warp w takes the 64 columns from 64 (i · kWarps + w) on. A lane copies 16-byte pieces of
// its own row of W to shared memory with cp.async, kDepth pieces ahead, and is the only one to read them: no barrier.
//
//   mma m16n8k16: rows = rows of x, columns = rows of W. The order of k within 32 does not matter as long as both sides
//   agree, so lane (g, c) holds W[g][8c .. 8c+7] and x[g][8c .. 8c+7] of each 32: two steps of k16.
//
// Partial sums of the warps are added in order; nothing depends on m: a row's bits are those it has alone. Launched to
// overlap with the kernel before it, while which it prefetches its first weights into L2.
#include "backend/cuda/attention.cuh"
#include "backend/cuda/glu.cuh"
#include "backend/cuda/overlap.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kPiece = 64;                 // columns of W that a warp takes at a time: two loads of 16 bytes a lane
constexpr int kPad = 32;                   // elements between rows of x: rows g and g + 1 lie in other banks
constexpr int64_t kMostBytes = 200 << 10;  // of shared memory in all
constexpr int64_t kMostShared = 96 << 10;  // bytes of x in shared memory; beyond, x is read through L1

struct Tile {
  const SkinnyLaunch::Part* part;
  int row;  // first of eight
};
// the t-th tile of eight rows, counted over all parts
__device__ __forceinline__ Tile tile_of(const SkinnyLaunch& a, int t) {
  int p = 0;
  while (p + 1 < a.parts && t >= (a.part[p].n + 7) / 8) t -= (a.part[p++].n + 7) / 8;
  return {&a.part[p], t * 8};
}
__device__ __forceinline__ const bf16* row_of(const SkinnyLaunch& a, const Tile& tile, int g) {
  return static_cast<const bf16*>(tile.part->w) + int64_t{min(tile.row + g, tile.part->n - 1)} * a.k;
}

// The rows of x, normalised if asked for, to shared memory [m, k + kPad].
__device__ __forceinline__ void load_input(const SkinnyLaunch& a, bf16* to, float* sums) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, step = a.k + kPad;
  for (int r = 0; r < a.m; ++r) {
    float squares = 0;
    for (int c = threadIdx.x * 8; c < a.k; c += kThreads * 8) {
      const uint4 v = *reinterpret_cast<const uint4*>(static_cast<const bf16*>(a.x) + r * a.x_stride + c);
      *reinterpret_cast<uint4*>(to + r * step + c) = v;
      const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float low = __uint_as_float(words[i] << 16), high = __uint_as_float(words[i] & 0xffff0000u);
        squares = fmaf(low, low, squares);
        squares = fmaf(high, high, squares);
      }
    }
    if (!a.norm) continue;
    squares = warp_sum(squares);
    if (lane == 0) sums[r * kWarps + warp] = squares;
  }
  if (a.norm) {
    __syncthreads();
    for (int r = 0; r < a.m; ++r) {
      float squares = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) squares += sums[r * kWarps + w];
      const float rstd = 1.f / sqrtf(squares / static_cast<float>(a.k) + a.eps);
      for (int c = threadIdx.x * 8; c < a.k; c += kThreads * 8) {  // what this thread wrote
        float v[8], w[8];
        load_pack<8>(to, r * step + c, v);
        load_any<8>(a.norm, a.norm_dtype, c, w);
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] = round_through<bf16>(v[i] * rstd) * w[i];
        store_pack<8>(to, r * step + c, v);
      }
    }
  }
  __syncthreads();
}

// one output of the epilogue: the sum over warps, as the unfused kernels round it
__device__ __forceinline__ float rounded(const SkinnyLaunch& a, const SkinnyLaunch::Part& p, float sum, int n) {
  if (p.bias) sum += load_one<float>(p.bias, p.bias_dtype, n);
  return sum;
}

// kRows: 8 or 16 rows of x; kTiles: tiles of W a block takes at a time
template <int kRows, int kTiles, int kDepth, bool kGlu, bool kShared>
__global__ void __launch_bounds__(kThreads) skinny_kernel(SkinnyLaunch a) {
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ float partial[2][kWarps][kTiles][kRows * 8];
  __shared__ float sums[kShared ? kRows * kWarps : 1];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
  const int pieces = a.k / kPiece, mine = (pieces - warp + kWarps - 1) / kWarps;  // pieces of a row; of this warp
  constexpr int kAtOnce = kGlu ? 1 : kTiles;                                      // tiles of one part
  const int items = (a.tiles + kAtOnce - 1) / kAtOnce;

  const auto weight = [&](int item, int i) {
    if constexpr (kGlu) return row_of(a, {&a.part[i], item * 8}, g) + warp * kPiece + c * 8;
    return row_of(a, tile_of(a, min(item * kTiles + i, a.tiles - 1)), g) + warp * kPiece + c * 8;
  };

  // this block's first weights on their way to L2: a lane asks for the line of one piece
  const int first = blockIdx.x;
  if (first < items)
#pragma unroll
    for (int i = 0; i < kTiles; ++i)
      for (int p = c; p < min(mine, 2 * kDepth); p += 4) prefetch_l2(weight(first, i) - c * 8 + p * kWarps * kPiece);
  let_next_start();
  wait_for_inputs();

  // the stream of this warp: all its pieces of the first item, then of the next one ...
  const uint32_t ring = shared_address(shared) + threadIdx.x * 16;
  constexpr int kStage = kTiles * 2 * kThreads * 16;
  int next_item = first, next_piece = 0, next_stage = 0;
  const bf16* from[kTiles];
  const auto aim = [&] {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) from[i] = weight(min(next_item, items - 1), i);
  };
  aim();
  const auto fetch = [&] {
    if (next_item < items) {
#pragma unroll
      for (int i = 0; i < kTiles; ++i)
#pragma unroll
        for (int h = 0; h < 2; ++h)
          copy_async(ring + next_stage * kStage + (i * 2 + h) * kThreads * 16,
                     from[i] + int64_t{next_piece} * kWarps * kPiece + h * 32, true);
      next_stage = next_stage + 1 == kDepth ? 0 : next_stage + 1;
      if (++next_piece == mine) {
        next_piece = 0;
        next_item += gridDim.x;
        aim();
      }
    }
    commit();
  };
  if (mine > 0)
#pragma unroll
    for (int s = 0; s < kDepth - 1; ++s) fetch();

  bf16* x_rows = reinterpret_cast<bf16*>(shared + kDepth * kStage);
  if constexpr (kShared) load_input(a, x_rows, sums);
  const bf16* x = kShared ? x_rows : static_cast<const bf16*>(a.x);
  const int64_t x_step = kShared ? a.k + kPad : a.x_stride;

  int stage = 0, turn = 0;
  for (int item = first; item < items; item += gridDim.x, turn ^= 1) {
    float acc[kTiles][2][4];
#pragma unroll
    for (int i = 0; i < kTiles; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int j = 0; j < 4; ++j) acc[i][h][j] = 0;
    for (int p = 0; p < mine; ++p) {
      fetch();
      wait<kDepth - 1>();
      const int column = (p * kWarps + warp) * kPiece + c * 8;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        uint4 low = make_uint4(0, 0, 0, 0), high = make_uint4(0, 0, 0, 0);
        if (g < a.m) low = *reinterpret_cast<const uint4*>(x + g * x_step + column + h * 32);
        if (kRows > 8 && g + 8 < a.m) high = *reinterpret_cast<const uint4*>(x + (g + 8) * x_step + column + h * 32);
        const uint32_t even[4] = {low.x, high.x, low.y, high.y}, odd[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          uint4 w;
          asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                       : "=r"(w.x), "=r"(w.y), "=r"(w.z), "=r"(w.w)
                       : "r"(ring + stage * kStage + (i * 2 + h) * kThreads * 16)
                       : "memory");
          multiply_add(acc[i][0], even, w.x, w.y);
          multiply_add(acc[i][1], odd, w.z, w.w);
        }
      }
      stage = stage + 1 == kDepth ? 0 : stage + 1;
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i)
#pragma unroll
      for (int h = 0; h < kRows / 8; ++h) {
        float2 v;
        v.x = acc[i][0][2 * h] + acc[i][1][2 * h];
        v.y = acc[i][0][2 * h + 1] + acc[i][1][2 * h + 1];
        if (g + 8 * h < a.m) *reinterpret_cast<float2*>(&partial[turn][warp][i][(g + 8 * h) * 8 + 2 * c]) = v;
      }
    __syncthreads();  // the other turn is read until here
    const auto sum_of = [&](int i, int at) {
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sum += partial[turn][w][i][at];
      return sum;
    };
    for (int o = threadIdx.x; o < kAtOnce * a.m * 8; o += kThreads) {
      const int i = o / (a.m * 8), at = o % (a.m * 8), r = at / 8;
      if (!kGlu && item * kTiles + i >= a.tiles) continue;
      const Tile tile = kGlu ? Tile{&a.part[0], item * 8} : tile_of(a, item * kTiles + i);
      const SkinnyLaunch::Part& part = *tile.part;
      const int n = tile.row + at % 8;
      if (n >= part.n) continue;
      float y = rounded(a, part, sum_of(i, at), n);
      if constexpr (kGlu) {
        const float up = round_through<bf16>(rounded(a, a.part[1], sum_of(1, at), n));
        y = activated(a.activation, round_through<bf16>(y)) * up;
      }
      if (a.residual)
        y = round_through<bf16>(y) + widen<float>(static_cast<const bf16*>(a.residual)[r * a.residual_stride + n]);
      const int64_t to = r * part.y_stride + n;
      if (a.accumulate) y += load_one<float>(part.y, a.y_dtype, to);
      store_one(part.y, a.y_dtype, to, y);
    }
  }
  wait<0>();
}

template <int kRows, int kTiles, int kDepth, bool kGlu, bool kShared>
void run(StreamHandle stream, const SkinnyLaunch& a, int blocks) {
  const auto kernel = skinny_kernel<kRows, kTiles, kDepth, kGlu, kShared>;
  const int64_t bytes =
      int64_t{kDepth} * kTiles * 2 * kThreads * 16 + (kShared ? int64_t{a.m} * (a.k + kPad) * 2 : int64_t{0});
  static SharedLimit limit;
  allow_shared(limit, reinterpret_cast<const void*>(kernel), kMostBytes);
  const int items = (a.tiles + (kGlu ? 1 : kTiles) - 1) / (kGlu ? 1 : kTiles);
  launch_overlapped(stream, kernel, dim3(static_cast<unsigned>(items < blocks ? items : blocks)), dim3(kThreads),
                    static_cast<size_t>(bytes), a);
}

template <int kRows, int kTiles, int kDepth>
void run_input(StreamHandle stream, const SkinnyLaunch& a, int blocks) {
  const bool shared = a.norm || int64_t{a.m} * a.k * 2 <= kMostShared;
  if (a.glu)
    shared ? run<kRows, 2, kDepth, true, true>(stream, a, blocks)
           : run<kRows, 2, kDepth, true, false>(stream, a, blocks);
  else
    shared ? run<kRows, kTiles, kDepth, false, true>(stream, a, blocks)
           : run<kRows, kTiles, kDepth, false, false>(stream, a, blocks);
}

}  // namespace

bool skinny_accepts(int64_t m, int64_t k, bool norm, bool glu) {
  if (m < 1 || m > 16 || k % kPiece || k < kPiece || k > (1 << 20)) return false;
  const int64_t x = m * (k + kPad) * 2;
  return !norm || x + (m > 8 || glu ? 64 << 10 : 32 << 10) <= kMostBytes;
}

void launch_skinny(StreamHandle stream, SkinnyLaunch a) {
  a.tiles = 0;
  for (int p = 0; p < (a.glu ? 1 : a.parts); ++p) a.tiles += (a.part[p].n + 7) / 8;
  const int blocks = a.multiprocessors * (a.blocks ? a.blocks : 2);
  const bool deep = a.depth == 8;
  if (a.m <= 8)
    deep ? run_input<8, 1, 8>(stream, a, blocks) : run_input<8, 1, 4>(stream, a, blocks);
  else
    deep ? run_input<16, 2, 8>(stream, a, blocks) : run_input<16, 2, 4>(stream, a, blocks);
}

}  // namespace pmetal::cuda
