// Shared by the attention kernels: masks, where rows and keys lie, the tensor-core instruction m16n8k16 and the shared
// memory tiles it reads. Query heads that share a key head are packed: packed row p of a sequence and key head is query
// p / group, head key_head · group + p % group, so one key tile serves them all.
#pragma once

#include "backend/cuda/device.cuh"

namespace pmetal::cuda {

constexpr int kKeyTile = 64;  // equal to the page
constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

struct KeyRange {
  int begin, end;
};
// Every mask leaves a query one interval of key indices.
__device__ __forceinline__ KeyRange visible(const AttentionLaunch& a, int query, int n_keys) {
  KeyRange r{0, a.causal ? min(n_keys, query + 1) : n_keys};
  if (a.window > 0) {
    r.begin = max(r.begin, query - a.window + 1);
    if (!a.causal) r.end = min(r.end, query + a.window);
  }
  if (a.chunk > 0) {
    r.begin = max(r.begin, query / a.chunk * a.chunk);
    r.end = min(r.end, (query / a.chunk + 1) * a.chunk);
  }
  return r;
}

// One sequence of the step.
struct Sequence {
  int index, first_row, rows, keys;
  __device__ Sequence(const AttentionLaunch& a, int s)
      : index(s),
        first_row(a.cu_q.as<int32_t>()[s]),
        rows(a.cu_q.as<int32_t>()[s + 1] - first_row),
        keys(a.kv_len.as<int32_t>()[s]) {}
  __device__ int query_of(int i) const { return keys - rows + i; }
};
__device__ __forceinline__ int sequence_of_row(const AttentionLaunch& a, int row) {
  const int32_t* cu = a.cu_q.as<int32_t>();
  int low = 0, high = a.sequences;  // the last s with cu[s] <= row
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    cu[middle] <= row ? low = middle : high = middle;
  }
  while (cu[low + 1] <= row) ++low;  // empty sequences
  return low;
}
// element offset of key `key` of a sequence for key head `head`, in k or v
__device__ __forceinline__ int64_t key_offset(const AttentionLaunch& a, const View& rows, int s, int head, int key) {
  if (a.page_table.data) {
    const int64_t page = a.page_table.as<int32_t>()[s * a.page_table.strides[0] + key / kKeyTile];
    return page * rows.strides[0] + head * rows.strides[1] + key % kKeyTile * rows.strides[2];
  }
  return (a.cu_k.as<int32_t>()[s] + key) * rows.strides[0] + head * rows.strides[1];
}

// ---- tiles of bf16 in shared memory: rows of kD elements in chunks of 8, chunk c of row r at c ^ (r % 8) ----
template <int kD>
__device__ __forceinline__ uint32_t tile_address(uint32_t tile, int row, int chunk) {
  return tile + (row * kD + ((chunk ^ (row & 7)) * 8)) * 2;
}
__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
// 16 bytes from global memory, or zeros
__device__ __forceinline__ void copy_async(uint32_t to, const void* from, bool exists) {
  const int bytes = exists ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
// c[16, 8] += a[16, 16] · b[16, 8]
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ uint32_t pair(float low, float high) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&v);
}

// Fragment addresses of this lane. A operand: rows [row, row + 16), columns [16 k, 16 k + 16).
template <int kD>
__device__ __forceinline__ uint32_t a_address(uint32_t tile, int row, int k) {
  const int lane = threadIdx.x % 32;
  return tile_address<kD>(tile, row + lane % 16, 2 * k + lane / 16);
}
// B operand from rows that are its columns (x · yᵀ): columns [row, row + 16), inner [16 k, 16 k + 16):
// registers 0, 1 for the first eight columns, 2, 3 for the others
template <int kD>
__device__ __forceinline__ uint32_t b_address(uint32_t tile, int row, int k) {
  const int lane = threadIdx.x % 32;
  return tile_address<kD>(tile, row + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2);
}
// B operand from rows that are its inner dimension (x · y), to be loaded transposed: inner [row, row + 16), columns
// [8 chunk, 8 chunk + 16)
template <int kD>
__device__ __forceinline__ uint32_t bt_address(uint32_t tile, int row, int chunk) {
  const int lane = threadIdx.x % 32;
  return tile_address<kD>(tile, row + lane % 16, chunk + lane / 16);
}

// c[16, 8 · kN] = a[16, kD] · b[8 · kN, kD]ᵀ from shared tiles
template <int kD, int kN>
__device__ __forceinline__ void product(float (&c)[kN][4], uint32_t a_tile, int a_row, uint32_t b_tile, int b_row) {
#pragma unroll
  for (int n = 0; n < kN; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) c[n][i] = 0;
#pragma unroll
  for (int k = 0; k < kD / 16; ++k) {
    uint32_t a[4];
    load_matrices(a, a_address<kD>(a_tile, a_row, k));
#pragma unroll
    for (int n = 0; n < kN; n += 2) {
      uint32_t b[4];
      load_matrices(b, b_address<kD>(b_tile, b_row + n * 8, k));
      multiply_add(c[n], a, b[0], b[1]);
      multiply_add(c[n + 1], a, b[2], b[3]);
    }
  }
}
// c[16, kD] += p[16, 8 · kN] · b[8 · kN, kD], p in registers as `product` leaves it. kExact: p as the sum of two bf16
// numbers instead of rounded to one.
template <int kD, int kN, bool kExact = false>
__device__ __forceinline__ void product_add(float (&c)[kD / 8][4], const float (&p)[kN][4], uint32_t b_tile,
                                            int b_row) {
#pragma unroll
  for (int k = 0; k < kN / 2; ++k) {
    const uint32_t a[4] = {pair(p[2 * k][0], p[2 * k][1]), pair(p[2 * k][2], p[2 * k][3]),
                           pair(p[2 * k + 1][0], p[2 * k + 1][1]), pair(p[2 * k + 1][2], p[2 * k + 1][3])};
    uint32_t rest[4];
    if constexpr (kExact) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        rest[i] = pair(p[2 * k + i / 2][i % 2 * 2] - __uint_as_float(a[i] << 16),
                       p[2 * k + i / 2][i % 2 * 2 + 1] - __uint_as_float(a[i] & 0xffff0000u));
    }
#pragma unroll
    for (int d = 0; d < kD / 8; d += 2) {
      uint32_t b[4];
      load_matrices_transposed(b, bt_address<kD>(b_tile, b_row + k * 16, d));
      multiply_add(c[d], a, b[0], b[1]);
      multiply_add(c[d + 1], a, b[2], b[3]);
      if constexpr (kExact) {
        multiply_add(c[d], rest, b[0], b[1]);
        multiply_add(c[d + 1], rest, b[2], b[3]);
      }
    }
  }
}

// rows [first, first + kRows) of the packed rows of a sequence and key head into a tile; those from `n` on are zeros
template <int kD, int kRows, int kThreads>
__device__ __forceinline__ void load_packed(const View& x, uint32_t tile, int64_t first_row, int head, int group,
                                            int first, int n) {
  constexpr int kChunks = kD / 8;
  const int chunks = static_cast<int>(x.shape[2]) / 8;
#pragma unroll
  for (int i = threadIdx.x; i < kRows * kChunks; i += kThreads) {
    const int r = i / kChunks, c = i % kChunks, p = first + r;
    const bool exists = p < n && c < chunks;
    const int64_t at =
        exists ? (first_row + p / group) * x.strides[0] + (head * group + p % group) * x.strides[1] + c * 8 : 0;
    copy_async(tile_address<kD>(tile, r, c), x.as<bf16>() + at, exists);
  }
}
// keys [base, base + 64) of a sequence and key head into a tile; those from `keys` on are zeros
template <int kD, int kThreads>
__device__ __forceinline__ void load_keys(const AttentionLaunch& a, const View& x, uint32_t tile, int s, int head,
                                          int base, int keys) {
  constexpr int kChunks = kD / 8;
  const bool paged = a.page_table.data != nullptr;
  const int chunks = static_cast<int>(x.shape[paged ? 3 : 2]) / 8;
  const int64_t first = base < keys ? key_offset(a, x, s, head, base) : 0;
  const int64_t step = x.strides[paged ? 2 : 0];
#pragma unroll
  for (int i = threadIdx.x; i < kKeyTile * kChunks; i += kThreads) {
    const int r = i / kChunks, c = i % kChunks;
    const bool exists = base + r < keys && c < chunks;
    copy_async(tile_address<kD>(tile, r, c), x.as<bf16>() + (exists ? first + r * step + c * 8 : 0), exists);
  }
}

}  // namespace pmetal::cuda
