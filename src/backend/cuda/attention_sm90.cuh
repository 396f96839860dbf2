// Shared by the attention kernels that run on wgmma (sm_90a). A block has three warpgroups: one copies tiles into rings
// of shared memory, two multiply; barriers in shared memory say which stage of a ring is full and which is empty.
// Blocks are as many as multiprocessors and take pieces of the work one after another, so that the copies of the next
// piece run while the last one is finished. Tiles lie as wgmma.cuh says.
#pragma once

#include <cuda.h>

#include "backend/cuda/attention.cuh"
#include "backend/cuda/wgmma.cuh"

namespace pmetal::cuda {

constexpr int kWarpgroup = 128, kWarpgroupRows = 64, kBlockThreads = 3 * kWarpgroup;
constexpr int kBlockRows = 2 * kWarpgroupRows;  // of the two warpgroups that multiply
constexpr int kReleases = 2 * kWarpgroup;       // each of their threads says that it is done with a stage
constexpr int kSharedLimit = 227 * 1024;

// p / group and p % group of packed rows; exact for p · group < 2³²
struct GroupDivider {
  int group;
  uint32_t magic;
  __device__ explicit GroupDivider(int g) : group(g), magic(g > 1 ? 0xffffffffu / static_cast<uint32_t>(g) + 1 : 0) {}
  __device__ __forceinline__ int query(int p) const {
    return group > 1 ? static_cast<int>(__umulhi(static_cast<uint32_t>(p), magic)) : p;
  }
};

// The order of the work: sections of as many pairs of sequence and key head as the L2 cache holds keys and values of;
// within a section tile 0 of all pairs comes first, and tile 0 is the longest. A block's first piece is the one of its
// number; then it takes the next that nobody has, by a counter in memory that is zero at the launch. Which block
// computes a piece changes none of its bits.
struct WorkOrder {
  int tiles, pairs, section;
  int* taken;
  WorkOrder(int64_t n_tiles, int64_t n_pairs, int64_t bytes_of_pair, int* counter)
      : tiles(static_cast<int>(n_tiles)), pairs(static_cast<int>(n_pairs)), taken(counter) {
    constexpr int64_t kCached = 32 << 20;
    const int64_t sections = (n_pairs * bytes_of_pair + kCached - 1) / kCached;
    section = static_cast<int>((n_pairs + sections - 1) / (sections < 1 ? 1 : sections));
    section = section < 1 ? 1 : section;
  }
  __host__ __device__ int count() const { return tiles * pairs; }
};
struct Work {
  int tile, head, sequence;
  __device__ Work(const WorkOrder& order, int index, int heads) {
    const int first = index / (order.section * order.tiles) * order.section,
              n = min(order.section, order.pairs - first), rest = index - first * order.tiles, pair = first + rest % n;
    tile = rest / n;
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

// ---- barriers in shared memory ----
__device__ __forceinline__ void barrier_init(uint32_t at, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t at) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}
// arrives when this thread's copies so far are done
__device__ __forceinline__ void barrier_arrive_after_copies(uint32_t at) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(at) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t at, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}\n"
        : "=r"(done)
        : "r"(at), "r"(parity)
        : "memory");
  } while (!done);
}

// announces bytes that bulk copies will bring to this phase; before this thread's arrival
__device__ __forceinline__ void barrier_expect(uint32_t at, int bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}

// A ring of stages with a full and an empty barrier each: full[kStages], empty[kStages].
template <int kStages>
struct Ring {
  uint32_t barriers;
  int stage = 0;
  uint32_t phase = 0;
  static constexpr int kBytes = kStages * 16;
  __device__ explicit Ring(uint32_t at) : barriers(at) {}
  __device__ __forceinline__ void init(int fills) const {
    for (int i = 0; i < kStages; ++i) {
      barrier_init(barriers + i * 8, fills);
      barrier_init(barriers + (kStages + i) * 8, kReleases);
    }
  }
  __device__ __forceinline__ uint32_t full() const { return barriers + stage * 8; }
  // bulk: nothing but the bulk copy engine filled the stage, so that the matrix unit may read it as it is
  __device__ __forceinline__ void wait_full(bool bulk) const {
    barrier_wait(full(), phase);
    if (!bulk) fence_async_proxy();
  }
  __device__ __forceinline__ void wait_empty() const { barrier_wait(barriers + (kStages + stage) * 8, phase ^ 1); }
  // Every thread for itself: one for its warp after __syncwarp() would do, but is no faster, and racecheck does not see
  // that __syncwarp() orders a thread's reads before another's arrival.
  __device__ __forceinline__ void release(int which) const { barrier_arrive(barriers + (kStages + which) * 8); }
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) stage = 0, phase ^= 1;
  }
};

// Registers move from the warpgroup that copies to those that multiply: kCopying + 2 · kMultiplying <= 3 · 168.
template <int kCopying>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCopying));
}
template <int kCopying>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"((504 - kCopying) / 16 * 8));
}

// The pieces of a block, for the threads of the copying warpgroup. The next one is asked for while the last is copied.
struct Pieces {
  static constexpr int kBytes = 8;
  uint32_t slots;  // two: the slower threads may still read the other
  int next = 0;    // of the first thread
  __device__ explicit Pieces(uint32_t at) : slots(at) {}
  __device__ __forceinline__ void ask(const WorkOrder& order) {
    if (threadIdx.x == 0) next = atomicAdd(order.taken, 1) + static_cast<int>(gridDim.x);
  }
  __device__ __forceinline__ int take() {
    if (threadIdx.x == 0) asm volatile("st.shared.s32 [%0], %1;" ::"r"(slots), "r"(next) : "memory");
    asm volatile("bar.sync 3, 128;" ::: "memory");
    int index;
    asm volatile("ld.shared.s32 %0, [%1];" : "=r"(index) : "r"(slots) : "memory");
    slots ^= 4;
    return __shfl_sync(0xffffffffu, index, 0);
  }
};

// ---- copies by one warpgroup ----
// Each thread copies one chunk of every kStep-th row, kCopies of them; chunk c of row r0 lies at panel_address.
template <int kD, int kRows>
struct Copy {
  static constexpr int kChunks = kD / 8, kStep = kWarpgroup / kChunks, kCopies = kRows / kStep;
  static_assert(kStep % 8 == 0);  // so that all rows of a thread are swizzled alike
  __device__ static __forceinline__ int chunk() { return threadIdx.x % kChunks; }
  __device__ static __forceinline__ int row() { return threadIdx.x % kWarpgroup / kChunks; }
  // rows at from, from + step, ..; the first `rows` of the tile exist, the others become zeros
  template <int kFirst = 0, int kCount = kCopies>
  __device__ static __forceinline__ void rows(uint32_t to, const bf16* from, int64_t step, int rows) {
#pragma unroll
    for (int i = kFirst; i < kFirst + kCount; ++i) {
      copy_async(to + i * kStep * 128, from, row() + i * kStep < rows);
      from += step;
    }
  }
};

// Whole tiles that lie evenly in memory come by the bulk copy engine, through a map of the tensor that the host made: a
// box of 64 columns, all heads of a group and as many rows as fill a tile. One thread starts them.
struct TileMaps {
  CUtensorMap q, dout, k, v;  // q and dout for kWarpgroupRows packed rows, k and v for 64 keys
  bool has_rows, has_keys;
};
template <int kD, int kRows>
__device__ __forceinline__ void copy_box(const CUtensorMap& map, uint32_t tile, uint32_t barrier, int head, int row) {
#if PMETAL_WGMMA
#pragma unroll
  for (int panel = 0; panel < kD / 64; ++panel)
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::
            "r"(tile + panel * kRows * 128),
        "l"(&map), "r"(barrier), "r"(panel * 64), "r"(head), "r"(row)
        : "memory");
#endif
}

template <int kD, int kRows>
__device__ __forceinline__ void copy_page(const CUtensorMap& map, uint32_t tile, uint32_t barrier, int head, int page) {
#if PMETAL_WGMMA
#pragma unroll
  for (int panel = 0; panel < kD / 64; ++panel)
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
        "[%2];" ::"r"(tile + panel * kRows * 128),
        "l"(&map), "r"(barrier), "r"(panel * 64), "r"(0), "r"(head), "r"(page)
        : "memory");
#endif
}

// Packed rows [first, first + kRows) of a sequence and key head into a tile; those from `n` on are zeros.
template <int kD, int kRows>
__device__ __forceinline__ void load_packed_rows(const CUtensorMap& map, bool mapped, uint32_t barrier, const View& x,
                                                 uint32_t tile, int first_row, int head, const GroupDivider& divider,
                                                 int first, int n) {
  if (mapped && first + kRows <= n) {
    if (threadIdx.x % kWarpgroup == 0) {
      barrier_expect(barrier, kRows * kD * 2);
      copy_box<kD, kRows>(map, tile, barrier, head * divider.group, first_row + divider.query(first));
    }
    return;
  }
  using C = Copy<kD, kRows>;
  const int c = C::chunk(), r0 = C::row(), group = divider.group;
  const uint32_t to = panel_address<kRows>(tile, r0, c);
  const bf16* base = x.as<bf16>() + first_row * x.strides[0] + head * group * x.strides[1] + c * 8;
  const int exist = c < static_cast<int>(x.shape[2]) / 8 ? n - first : 0;
  if (C::kStep % group == 0) {  // all rows of a thread are of one head
    const int query = divider.query(first + r0), h = first + r0 - query * group;
    C::template rows<>(to, base + query * x.strides[0] + h * x.strides[1], C::kStep / group * x.strides[0], exist);
    return;
  }
#pragma unroll
  for (int i = 0; i < C::kCopies; ++i) {
    const int r = r0 + i * C::kStep, query = divider.query(first + r);
    const bool exists = r < exist;
    const bf16* from = base + query * x.strides[0] + (first + r - query * group) * x.strides[1];
    copy_async(to + i * C::kStep * 128, exists ? from : x.as<bf16>(), exists);
  }
}

// Keys [first, first + kRows), first a multiple of 64, of a sequence and key head; those from `keys` on are zeros. Keys
// that are not paged begin at row0.
__device__ __forceinline__ int first_key_row(const AttentionLaunch& a, int s) {
  return a.page_table.data ? 0 : a.cu_k.as<int32_t>()[s];
}
template <int kD, int kRows>
__device__ __forceinline__ void load_key_rows(const CUtensorMap& map, bool mapped, uint32_t barrier,
                                              const AttentionLaunch& a, const View& x, uint32_t tile, int s, int row0,
                                              int head, int first, int keys) {
  if (mapped && first + kRows <= keys) {
    const int thread = threadIdx.x % kWarpgroup;
    if (a.page_table.data) {  // a thread for each page
      if (thread < kRows / kKeyTile) {
        const int page = a.page_table.as<int32_t>()[s * a.page_table.strides[0] + first / kKeyTile + thread];
        barrier_expect(barrier, kKeyTile * kD * 2);
        copy_page<kD, kRows>(map, tile + thread * kKeyTile * 128, barrier, head, page);
      }
    } else if (thread == 0) {
      barrier_expect(barrier, kRows * kD * 2);
      copy_box<kD, kRows>(map, tile, barrier, head, row0 + first);
    }
    return;
  }
  using C = Copy<kD, kRows>;
  const bool paged = a.page_table.data != nullptr;
  const int c = C::chunk(), r0 = C::row();
  const uint32_t to = panel_address<kRows>(tile, r0, c);
  const int exist = c < static_cast<int>(x.shape[paged ? 3 : 2]) / 8 ? keys - first : 0;
  const int64_t step = x.strides[paged ? 2 : 0];
  constexpr int kPage = kKeyTile / C::kStep;  // copies of a page
#pragma unroll
  for (int page = 0; page < kRows / kKeyTile; ++page) {
    const int key = first + page * kKeyTile;
    int64_t base = (row0 + key) * step + head * x.strides[1];
    if (paged) base = key < keys ? key_offset(a, x, s, head, key) : 0;
    const bf16* from = x.as<bf16>() + base + r0 * step + c * 8;  // only followed for rows that exist
    if (page == 0)
      C::template rows<0, kPage>(to, from, C::kStep * step, exist);
    else
      C::template rows<kRows / kKeyTile == 2 ? kPage : 0, kPage>(to, from, C::kStep * step, exist);
  }
}

// A map of x: [rows, heads, d] in boxes of `rows` rows, `heads` heads and 64 columns, or pages [pages, heads, 64, d] in
// boxes of a page, a head and 64 columns.
inline bool make_map(CUtensorMap& map, const View& x, int heads, int rows) {
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result) !=
        cudaSuccess)
      found = nullptr;
    return reinterpret_cast<Encode>(found);
  }();
  if (!encode) return false;
  cuuint64_t sizes[4], strides[3];
  for (int i = 0; i < x.rank; ++i) sizes[i] = static_cast<cuuint64_t>(x.shape[x.rank - 1 - i]);
  for (int i = 0; i + 1 < x.rank; ++i) strides[i] = static_cast<cuuint64_t>(x.strides[x.rank - 2 - i] * 2);
  const bool pages = x.rank == 4;
  const cuuint32_t box[] = {64, static_cast<cuuint32_t>(pages ? kKeyTile : heads),
                            static_cast<cuuint32_t>(pages ? 1 : rows), 1},
                   steps[] = {1, 1, 1, 1};
  return encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(x.rank), x.data, sizes, strides, box,
                steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}
inline TileMaps make_maps(const AttentionLaunch& a, int keys) {
  TileMaps m{};
  m.has_rows = kWarpgroupRows % a.group == 0 && make_map(m.q, a.q, a.group, kWarpgroupRows / a.group) &&
               (!a.dout.data || make_map(m.dout, a.dout, a.group, kWarpgroupRows / a.group));
  m.has_keys = make_map(m.k, a.k, 1, keys) && make_map(m.v, a.v, 1, keys);
  return m;
}

// ---- operands in registers ----
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

// the number of this thread's warpgroup, known to be the same in the whole warp
__device__ __forceinline__ int warpgroup_index() {
  return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
}

}  // namespace pmetal::cuda
