// Shared by the attention kernels that run on wgmma (sm_90a): tiles in the layout of wgmma.cuh, filled with cp.async by
// the two warpgroups of a block, and the order in which blocks take their work.
#pragma once

#include "backend/cuda/attention.cuh"
#include "backend/cuda/wgmma.cuh"

namespace pmetal::cuda {

constexpr int kBlockThreads = 256, kWarpgroupRows = 64;

// p / group and p % group of packed rows; exact for p · group < 2³²
struct GroupDivider {
  int group;
  uint32_t magic;
  __device__ explicit GroupDivider(int g) : group(g), magic(g > 1 ? 0xffffffffu / static_cast<uint32_t>(g) + 1 : 0) {}
  __device__ __forceinline__ int query(int p) const {
    return group > 1 ? static_cast<int>(__umulhi(static_cast<uint32_t>(p), magic)) : p;
  }
};

// Which tile of which sequence and key head a block takes. A wave takes neighbouring tiles of few heads, whose other
// operands then stay in the L2 cache; the first half of all tiles comes before the second, so that a causal mask's
// short tiles run last.
struct Work {
  int tile, head, sequence;
  __device__ Work(int index, int tiles, int heads, int sequences) {
    const int half = (tiles + 1) / 2, pairs = heads * sequences;
    int pair;
    if (index < half * pairs) {
      pair = index / half;
      tile = index % half;
    } else {
      index -= half * pairs;
      pair = index / (tiles - half);
      tile = half + index % (tiles - half);
    }
    head = pair % heads;
    sequence = pair / heads;
  }
};

template <int kRows>
__device__ __forceinline__ uint32_t panel_address(uint32_t tile, int row, int chunk) {
  return tile + (chunk >> 3) * (kRows * 128) + row * 128 + (((chunk & 7) ^ (row & 7)) << 4);
}
// bytes from the start of a tile to the k-th step of 16 columns
template <int kRows>
__device__ __forceinline__ constexpr uint32_t column_step(int k) {
  return static_cast<uint32_t>(k / 4 * (kRows * 128) + k % 4 * 32);
}
constexpr uint32_t kRowStep = 16 * 128;  // bytes of 16 rows of a panel

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Packed rows [first, first + kRows) of a sequence and key head into a tile; those from `n` on are zeros.
template <int kD, int kRows>
__device__ __forceinline__ void load_packed_rows(const View& x, uint32_t tile, int64_t first_row, int head,
                                                 const GroupDivider& divider, int first, int n) {
  constexpr int kChunks = kD / 8, kStep = kBlockThreads / kChunks;
  const int c = threadIdx.x % kChunks, r0 = threadIdx.x / kChunks;
  const bool inside = c < static_cast<int>(x.shape[2]) / 8;
  const bf16* base = x.as<bf16>() + first_row * x.strides[0] + head * divider.group * x.strides[1] + c * 8;
#pragma unroll
  for (int i = 0; i < kRows / kStep; ++i) {
    const int r = r0 + i * kStep, p = first + r, query = divider.query(p);
    const bool exists = inside && p < n;
    const bf16* from = base + query * x.strides[0] + (p - query * divider.group) * x.strides[1];
    copy_async(panel_address<kRows>(tile, r, c), exists ? from : x.as<bf16>(), exists);
  }
}

// Keys [first, first + kRows), first a multiple of 64, of a sequence and key head; those from `keys` on are zeros.
template <int kD, int kRows>
__device__ __forceinline__ void load_key_rows(const AttentionLaunch& a, const View& x, uint32_t tile, int s, int head,
                                              int first, int keys) {
  constexpr int kChunks = kD / 8, kStep = kBlockThreads / kChunks;
  const bool paged = a.page_table.data != nullptr;
  const int c = threadIdx.x % kChunks, r0 = threadIdx.x / kChunks;
  const bool inside = c < static_cast<int>(x.shape[paged ? 3 : 2]) / 8;
  const int64_t step = x.strides[paged ? 2 : 0];
#pragma unroll
  for (int page = 0; page < kRows; page += kKeyTile) {
    const int64_t base = first + page < keys ? key_offset(a, x, s, head, first + page) : 0;
#pragma unroll
    for (int i = 0; i < kKeyTile / kStep; ++i) {
      const int r = r0 + i * kStep;
      const bool exists = inside && first + page + r < keys;
      copy_async(panel_address<kRows>(tile, page + r, c), x.as<bf16>() + (exists ? base + r * step + c * 8 : 0),
                 exists);
    }
  }
}

// a operands of a warp's 16 rows of a 64-row tile
template <int kD>
__device__ __forceinline__ void load_a(uint32_t (&a)[kD / 16][4], uint32_t tile) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane % 16;
#pragma unroll
  for (int k = 0; k < kD / 16; ++k) load_matrices(a[k], panel_address<kWarpgroupRows>(tile, row, 2 * k + lane / 16));
}

// sums rounded to the a operand of the next product
template <int kN>
__device__ __forceinline__ void to_a(uint32_t (&a)[kN / 2][4], const float (&c)[kN][4]) {
#pragma unroll
  for (int k = 0; k < kN / 2; ++k) {
    a[k][0] = pair(c[2 * k][0], c[2 * k][1]);
    a[k][1] = pair(c[2 * k][2], c[2 * k][3]);
    a[k][2] = pair(c[2 * k + 1][0], c[2 * k + 1][1]);
    a[k][3] = pair(c[2 * k + 1][2], c[2 * k + 1][3]);
  }
}

}  // namespace pmetal::cuda
