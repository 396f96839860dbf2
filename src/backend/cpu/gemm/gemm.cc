// The driver of the three products: how C [rows, cols] = A [rows, depth] · B [depth, cols] is cut and walked.
//
//   for each piece of A that fits the shared buffer (only where A must be packed): pack it, all workers together; then
//     tasks = row blocks (A stays in L2) × super blocks of columns (C stays in L2), taken by workers:
//       for each chunk of the depth                         (B panel stays in L1)
//         for each panel of the super block                 (B in place, or packed to the worker's scratch)
//           inner kernel: C += A · B over all rows of the block
//       finish: bias, residual, rounding, store
//
// Where the depth is walked in chunks over wide super blocks (C and a chunk of A stay in L2), a task is one panel of
// one chunk, so that a core that is slowed down by others leaves most of them to the rest: `staged`.
//
// Cutting never changes a chain: C is kept in f32 between chunks, which is exact.
#include "backend/cpu/gemm/gemm.h"

#include <emmintrin.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <utility>

#include "backend/cpu/gemm/kernels.h"
#include "backend/cpu/gemm/pack.h"
#include "base/error.h"

namespace pmetal::cpu {
namespace {

constexpr int64_t kPackedABytes = int64_t{16} << 20;  // of the shared buffer for packed A
constexpr int64_t kSplitDepth = 2048;                 // weight gradients: depth (tokens) of one piece of packed A
constexpr int64_t kSerialPack = 32768;                // elements of A that one worker packs faster than it wakes others
constexpr int64_t kStreamBytes = 256 << 10;           // from this size on C is stored past the caches
constexpr int64_t kNarrow = 64;                       // outputs up to which tiles come from rows as they lie
constexpr int kMaxRanges = 64;                        // of tasks; more workers share them

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

struct Product {
  const GemmKernels* kernels = nullptr;
  int64_t rows = 0, cols = 0, depth = 0;
  AOperand a;
  BOperand b;
  Matrix c;
  bool accumulate = false;
  const void* bias = nullptr;
  DType bias_dtype = DType::kF32;
  ConstMatrix residual;
  int64_t low_depth = 0;  // of the second product; 0: none
  AOperand low_a;
  BOperand low_b;
};

struct Plan {
  bool is_bf16 = false;  // bf16 · bf16 arithmetic; else A is f32
  BlockFn block = nullptr;
  DType a_dtype = DType::kF32;
  bool few = false;  // all rows in one pass over B
  bool packs_a = false, packs_b = false;
  bool tiled = false;     // the inner kernel works on tiles
  bool finishes = false;  // and finishes its sums itself
  bool streams = false;   // C goes past the caches
  APacked a_packed;
  int64_t row_piece = 0, depth_piece = 0;  // of packed A
  int64_t block_rows = 0, super_blocks = 0, panel_blocks = 0, chunk = 0;
  // all workers go through the panels of `stage_blocks` columns together, chunk after chunk of the depth; 0: they do
  // not
  int64_t stage_blocks = 0;
  APacked low_a;  // of the second product, all rows
  // workspace: a, low_a and what stages share, the others per worker
  int64_t a_bytes = 0, low_a_bytes = 0, stage_bytes = 0, b_bytes = 0, c_bytes = 0, bias_bytes = 0, low_b_bytes = 0;
  int64_t shared_bytes() const { return a_bytes + low_a_bytes + stage_bytes; }
  int64_t worker_bytes() const { return b_bytes + c_bytes + bias_bytes + low_b_bytes; }
};

int ranges_of(int n_threads) { return std::min(n_threads, kMaxRanges); }

Plan make_plan(const Product& p, int n_threads) {
  const GemmKernels& k = *p.kernels;
  Plan plan;
  const bool b_bf16 = p.b.dtype == DType::kBF16;
  plan.is_bf16 = p.a.dtype == DType::kBF16 && b_bf16 && k.block_bf16;
  plan.block = plan.is_bf16 ? k.block_bf16 : b_bf16 ? k.block_f32_bf16 : k.block_f32;
  plan.a_dtype = plan.is_bf16 ? DType::kBF16 : DType::kF32;
  plan.few = p.rows <= k.few_rows;
  plan.packs_b = p.b.source != BSource::kPacked && p.depth > 0;
  const bool tiled = plan.tiled = plan.is_bf16 && k.a_tiled;
  const bool narrow = plan.few || p.cols <= kNarrow;  // A is read once or twice: not worth packing
  // rows a multiple of 4 KiB apart share one set of L1: copied apart where that is little beside the product
  const bool aliases = p.a.stride % 4096 == 0 && p.rows > 4 && p.cols >= 256 && !tiled;
  plan.packs_a = p.depth > 0 && (p.a.is_transposed || p.a.dtype != plan.a_dtype ||
                                 (plan.is_bf16 && p.depth % k.depth_granule != 0) || (tiled && !narrow) || aliases);

  // a piece of A
  plan.row_piece = p.rows;
  plan.depth_piece = p.depth;
  if (plan.packs_a) {
    if (p.a.is_transposed) plan.depth_piece = std::min(p.depth, kSplitDepth);
    plan.a_packed = {plan.a_dtype, tiled, round_up(plan.depth_piece, 32) + (tiled ? 0 : 32)};
    const int64_t groups = std::max<int64_t>(1, kPackedABytes / plan.a_packed.group_bytes());
    const int64_t rows = std::max(k.block_rows, groups * 16 / k.block_rows * k.block_rows);
    plan.row_piece = std::min(p.rows, rows);
    plan.a_bytes = divide_up(plan.row_piece, 16) * plan.a_packed.group_bytes();
  }

  // blocking: enough tasks for every worker, but no more passes over A and B than needed. Tiles outrun L3, so there one
  // even task for each worker is better than many.
  const int64_t blocks = divide_up(p.cols, 16);
  plan.panel_blocks = k.panel_blocks;
  plan.block_rows = std::min(k.block_rows, round_up(plan.row_piece, 16));
  plan.chunk = b_bf16 ? k.chunk_bf16 : k.chunk_f32;
  if (plan.few) {
    if (!plan.packs_b) plan.chunk = std::max<int64_t>(plan.depth_piece, 1);
    plan.super_blocks =
        std::clamp(round_up(divide_up(blocks, 8 * n_threads), k.panel_blocks), k.panel_blocks, int64_t{64});
  } else {
    plan.super_blocks =
        plan.depth_piece >= k.depth_outer_from && plan.depth_piece > plan.chunk ? k.super_blocks : k.panel_blocks;
    const auto is_uneven = [&] {
      const int64_t tasks = divide_up(plan.row_piece, plan.block_rows) * divide_up(blocks, plan.super_blocks);
      if (n_threads == 1 || tasks >= 8 * n_threads) return false;
      return tiled ? 10 * tasks < 9 * round_up(tasks, n_threads) : tasks < 4 * n_threads;
    };
    if (plan.super_blocks > k.panel_blocks) {
      const int64_t widest = k.super_blocks * ranges_of(n_threads), stages = divide_up(blocks, widest);
      const int64_t width = round_up(divide_up(blocks, stages), k.panel_blocks);
      if (width / k.panel_blocks >= 4 * n_threads) plan.stage_blocks = width;
    }
    while (plan.stage_blocks == 0 && is_uneven() && plan.super_blocks > k.panel_blocks)
      plan.super_blocks = std::max(k.panel_blocks, round_up(plan.super_blocks / 2, k.panel_blocks));
    while (plan.stage_blocks == 0 && is_uneven() && plan.block_rows > 96)
      plan.block_rows = round_up(plan.block_rows / 2, 96);
  }
  plan.finishes = plan.is_bf16 && k.finishes && !plan.few;
  plan.streams = plan.finishes && p.rows * p.cols * size_of(p.c.dtype) >= kStreamBytes;
  plan.chunk = std::min(plan.chunk, round_up(std::max<int64_t>(plan.depth_piece, 1), 32));
  if (plan.packs_b) plan.b_bytes = round_up(plan.panel_blocks, 2) * b_block_bytes(p.b.dtype, plan.chunk);
  const int64_t c_bytes = round_up(plan.block_rows, 16) * 64;  // of a block of columns
  if (plan.stage_blocks > 0)
    plan.stage_bytes =
        c_bytes * plan.stage_blocks + round_up(plan.stage_blocks * int64_t{sizeof(std::atomic<int64_t>)}, 64);
  else
    plan.c_bytes = c_bytes * plan.super_blocks;
  if (p.bias) plan.bias_bytes = plan.super_blocks * 64;
  if (p.low_depth > 0) {
    plan.low_a = {DType::kBF16, true, round_up(p.low_depth, 32)};
    plan.low_a_bytes = divide_up(p.rows, 16) * plan.low_a.group_bytes();
    plan.low_b_bytes = round_up(plan.few ? plan.super_blocks : plan.panel_blocks, 2) *
                       b_block_bytes(DType::kBF16, plan.low_a.depth_padded);
  }
  return plan;
}

int64_t plan_bytes(const Product& p, int n_threads) {
  if (p.rows == 0 || p.cols == 0) return 0;
  const Plan plan = make_plan(p, n_threads);
  return plan.shared_bytes() + plan.worker_bytes() * n_threads;
}

struct alignas(64) Range {
  std::atomic<int64_t> next{0};
};

class Run {
 public:
  Run(const Product& product, char* workspace, ThreadPool& pool)
      : p_(product), plan_(make_plan(product, pool.size())), workspace_(workspace), pool_(pool) {}

  void operator()() {
    if (p_.low_depth > 0)
      for (int64_t g = 0; g < divide_up(p_.rows, 16); ++g)
        pack_a(*p_.kernels, p_.low_a, plan_.low_a, g * 16, std::min<int64_t>(16, p_.rows - g * 16), 0, p_.low_depth,
               low_a() + g * plan_.low_a.group_bytes());
    for (int64_t d = 0; d == 0 || d < p_.depth; d += plan_.depth_piece) {
      const int64_t length = std::min(plan_.depth_piece, p_.depth - d);
      for (int64_t r = 0; r < p_.rows; r += plan_.row_piece)
        piece(r, std::min(plan_.row_piece, p_.rows - r), d, length);
      if (p_.depth == 0) break;
    }
  }

 private:
  char* low_a() const { return workspace_ + plan_.a_bytes; }

  void piece(int64_t row, int64_t n_rows, int64_t begin, int64_t length) {
    if (plan_.packs_a) {
      const auto pack = [&](int64_t first, int64_t last) {
        for (int64_t g = first; g < last; ++g)
          pack_a(*p_.kernels, p_.a, plan_.a_packed, row + g * 16, std::min<int64_t>(16, n_rows - g * 16), begin, length,
                 workspace_ + g * plan_.a_packed.group_bytes());
      };
      const int64_t groups = divide_up(n_rows, 16);
      if (n_rows * length <= kSerialPack)
        pack(0, groups);
      else
        pool_.parallel_for(groups, 1, pack);
    }
    if (plan_.stage_blocks > 0) return staged(row, n_rows, begin, length);
    const int64_t row_blocks = divide_up(n_rows, plan_.block_rows);
    const int64_t supers = divide_up(divide_up(p_.cols, 16), plan_.super_blocks);
    const auto work = [&](int worker, int64_t t) {
      const int64_t r = t / supers * plan_.block_rows;
      task(worker, row, r, std::min(plan_.block_rows, n_rows - r), t % supers * plan_.super_blocks, begin, length);
    };
    const int64_t n_tasks = row_blocks * supers;
    if (n_tasks == 1 || n_rows * length * p_.cols <= kSerialPack) {
      for (int64_t t = 0; t < n_tasks; ++t) work(0, t);
      if (plan_.streams) _mm_sfence();
      return;
    }
    // each worker walks a range of its own (its reads of B are one stream, and no two workers write neighbouring lines)
    // and then helps the others
    const int n_ranges = ranges_of(pool_.size());
    const auto first_of = [&](int64_t range) { return n_tasks * range / n_ranges; };
    Range ranges[kMaxRanges];
    for (int i = 0; i < n_ranges; ++i) ranges[i].next = first_of(i);
    pool_.run([&](int worker) {
      for (int i = 0; i < n_ranges; ++i) {
        const int range = (worker + i) % n_ranges;
        const int64_t end = first_of(range + 1);
        for (int64_t t = ranges[range].next.fetch_add(1); t < end; t = ranges[range].next.fetch_add(1)) work(worker, t);
      }
      if (plan_.streams) _mm_sfence();
    });
  }

  // A stage is one chunk of the depth of one rectangle of C. Workers take the panels of a stage first from a range of
  // their own, then from the others'; a panel waits until its last stage is done, which is hardly ever.
  void staged(int64_t row, int64_t n_rows, int64_t begin, int64_t length) {
    const int n_ranges = ranges_of(pool_.size());
    const int64_t blocks = divide_up(p_.cols, 16), width = plan_.stage_blocks, panel = plan_.panel_blocks;
    const int64_t chunks = divide_up(length, plan_.chunk), across = divide_up(blocks, width);
    const int64_t n_stages = divide_up(n_rows, plan_.block_rows) * across * chunks;
    const int64_t in_range = divide_up(width / panel, n_ranges);
    char* shared = workspace_ + plan_.a_bytes + plan_.low_a_bytes;
    const int64_t c_bytes = round_up(plan_.block_rows, 16) * 64;                     // of a block of columns
    auto* done = reinterpret_cast<std::atomic<int64_t>*>(shared + c_bytes * width);  // stages, of each panel
    for (int64_t j = 0; j < width / panel; ++j) new (done + j) std::atomic<int64_t>(0);
    Range ranges[kMaxRanges];  // how many panels have been taken from each, over all stages
    const auto take = [&](int range, int64_t stage) {
      int64_t taken = ranges[range].next.load();
      while (taken < (stage + 1) * in_range)
        if (ranges[range].next.compare_exchange_weak(taken, taken + 1)) return range * in_range + taken % in_range;
      return int64_t{-1};
    };
    pool_.run([&](int worker) {
      for (int64_t stage = 0; stage < n_stages; ++stage) {
        const int64_t d = stage % chunks * plan_.chunk, first = stage / chunks % across * width;
        const int64_t r = stage / chunks / across * plan_.block_rows;
        for (int i = 0; i < n_ranges; ++i) {
          const int range = (worker + i) % n_ranges;
          for (int64_t j = take(range, stage); j >= 0; j = take(range, stage)) {
            const int64_t block = first + j * panel, n_blocks = std::min({panel, width - j * panel, blocks - block});
            if (j * panel >= width) continue;
            while (done[j].load(std::memory_order_acquire) < stage) _mm_pause();
            if (n_blocks <= 0) {  // of the narrower last rectangle
              done[j].store(stage + 1, std::memory_order_release);
              continue;
            }
            const int64_t own = first + range * in_range * panel;  // where the range begins
            const Pieces next = after(own, std::min({in_range * panel, first + width - own, blocks - own}),
                                      block - own + panel, n_blocks, width, begin, d, length);
            do_panel(worker, {row, r, std::min(plan_.block_rows, n_rows - r), block, n_blocks, begin, d, length},
                     reinterpret_cast<float*>(shared + c_bytes * j * panel), next);
            done[j].store(stage + 1, std::memory_order_release);
          }
        }
      }
      if (plan_.streams) _mm_sfence();
    });
  }

  // rows [r, r + n) of the piece that begins at `row`; super block of columns from `block` on
  void task(int worker, int64_t row, int64_t r, int64_t n, int64_t block, int64_t begin, int64_t length) {
    float* c = reinterpret_cast<float*>(scratch_of(worker) + plan_.b_bytes);
    const int64_t n_blocks = std::min(plan_.super_blocks, divide_up(p_.cols, 16) - block);
    const int64_t panel = plan_.few && !plan_.packs_b ? n_blocks : plan_.panel_blocks;
    for (int64_t d = 0; d == 0 || d < length; d += plan_.chunk)
      for (int64_t j = 0; j < n_blocks; j += panel) {
        const int64_t width = std::min(panel, n_blocks - j);
        do_panel(worker, {row, r, n, block + j, width, begin, d, length}, c + round_up(n, 16) * j * 16,
                 after(block, n_blocks, j + panel, width, plan_.super_blocks, begin, d, length));
      }
  }

  char* scratch_of(int worker) const { return workspace_ + plan_.shared_bytes() + worker * plan_.worker_bytes(); }

  struct Panel {
    int64_t row, r, n;         // rows [r, r + n) of the piece of A that begins at `row`
    int64_t block, n_blocks;   // columns
    int64_t begin, d, length;  // chunk d of a piece of the depth
  };
  // `c`: where its sums are kept from chunk to chunk when they are not in place
  void do_panel(int worker, const Panel& p, float* c, const Pieces& next) {
    char* scratch = scratch_of(worker);
    const int64_t column = p.block * 16, width = std::min(p.n_blocks * 16, p_.cols - column);
    const bool in_place = p_.c.dtype == DType::kF32 && !(plan_.streams && !p_.accumulate) && width % 16 == 0 &&
                          !p_.bias && !p_.residual.data &&
                          !(plan_.tiled && p_.c.stride % 1024 == 0);  // 16 rows of a tile in one set of L1
    const bool continues = p_.accumulate || p.begin > 0, is_last = p.d + plan_.chunk >= p.length;
    BlockArgs s;
    s.rows = p.n;
    s.n_blocks = p.n_blocks;
    s.depth = std::min(plan_.chunk, p.length - p.d);
    s.from_zero = !continues && p.d == 0;
    s.c = in_place ? static_cast<float*>(p_.c.data) + (p.row + p.r) * p_.c.stride + column : c;
    s.c_stride = in_place ? p_.c.stride : (plan_.few && !plan_.packs_b ? p.n_blocks : plan_.panel_blocks) * 16;
    s.b_next = next;
    place_a(s, p.row, p.r, p.begin, p.d);
    if (p.d == 0 && (p.length == 0 || (continues && !in_place))) begin_panel(s, p.row + p.r, column, width, continues);
    if (p_.low_depth > 0 && is_last)
      s.low = pack_low(p.row + p.r, p.block, p.n_blocks, scratch + plan_.worker_bytes() - plan_.low_b_bytes);
    FinishArgs last;
    float* bias = reinterpret_cast<float*>(scratch + plan_.b_bytes + plan_.c_bytes);
    if (!in_place && is_last) last = finish_of(p.row + p.r, p.n, column, width, bias);
    if (!in_place && is_last && plan_.finishes && p.length > 0) {
      s.last = &last;
      s.finish = p_.kernels->finish;
    }
    if (p.length > 0 && plan_.packs_b) {
      pack_b(*p_.kernels, p_.b, p.block, p.n_blocks, p.begin + p.d, s.depth, scratch);
      s.b = scratch;
      s.b_stride = b_block_bytes(p_.b.dtype, s.depth);
      plan_.block(s);
    } else if (p.length > 0) {  // lines of 64 bytes: one k of f32, two of bf16
      s.b_stride = packed_weight_bytes(p_.b.dtype, 16, p_.depth);
      s.b = p_.b.data + p.block * s.b_stride + (p.begin + p.d) * 16 * size_of(p_.b.dtype);
      plan_.block(s);
    }
    if (!in_place && is_last && !s.last) {
      last.c = s.c;
      last.c_stride = s.c_stride;
      p_.kernels->finish(last);
    }
  }

  // the second product of a panel, its B packed to `to`
  BlockArgs::Low pack_low(int64_t row, int64_t block, int64_t n_blocks, char* to) const {
    pack_b(*p_.kernels, p_.low_b, block, n_blocks, 0, p_.low_depth, to);
    return {plan_.low_a.depth_padded, low_a() + row / 16 * plan_.low_a.group_bytes(), to, plan_.low_a.group_bytes(),
            b_block_bytes(DType::kBF16, p_.low_depth)};
  }

  // the sums so far, or zeros, into the panel's C
  void begin_panel(const BlockArgs& s, int64_t row, int64_t column, int64_t width, bool continues) const {
    for (int64_t i = 0; i < s.rows; ++i) {
      float* to = s.c + i * s.c_stride;
      const float* old = static_cast<const float*>(p_.c.data) + (row + i) * p_.c.stride + column;
      if (!continues)
        std::fill_n(to, width, 0.f);
      else if (to != old)
        std::memcpy(to, old, static_cast<size_t>(width) * sizeof(float));
    }
  }

  // what this worker reads next: the next panel, the first panel of the next chunk, or (likely) of its next task
  Pieces after(int64_t block, int64_t n_blocks, int64_t next_panel, int64_t n_panel, int64_t step, int64_t begin,
               int64_t d, int64_t length) const {
    int64_t next = block + next_panel, at = d;
    if (next_panel >= n_blocks) {
      next = block;
      at = d + plan_.chunk;
      if (at >= length) next += step, at = 0;
    }
    if (next >= divide_up(p_.cols, 16)) return {};
    const int64_t depth = std::min(plan_.chunk, length - at), line = 16 * size_of(p_.b.dtype);  // bytes of one k
    if (p_.b.source == BSource::kPacked) {
      const int64_t stride = packed_weight_bytes(p_.b.dtype, 16, p_.depth);
      return {p_.b.data + next * stride + (begin + at) * line, n_panel, depth * line, stride};
    }
    if (p_.b.source == BSource::kPackedTransposed && p_.b.dtype == DType::kBF16) {  // tiles of 32 columns
      const int64_t tiles = divide_up(p_.b.cols, 32), group = (begin + at) / 16;
      const int64_t groups = std::min(divide_up(depth, 16), divide_up(p_.b.depth, 16) - group);
      return {p_.b.data + (group * tiles + next / 2) * 1024, groups,
              std::min(divide_up(n_panel, 2), tiles - next / 2) * 1024, tiles * 1024};
    }
    return {};
  }

  void place_a(BlockArgs& s, int64_t row, int64_t r, int64_t begin, int64_t d) const {
    if (plan_.packs_a) {
      const APacked& packed = plan_.a_packed;
      s.a_row_stride = packed.row_stride();
      s.a_tile_row_stride = packed.group_bytes();
      s.a_tile_stride = packed.tiled ? 1024 : 64;
      s.a = workspace_ + r / 16 * packed.group_bytes() + (packed.tiled ? d / 32 * 1024 : d * size_of(packed.dtype));
      return;
    }
    s.a_row_stride = p_.a.stride;
    s.a_tile_row_stride = 16 * p_.a.stride;
    s.a_tile_stride = 64;
    s.a = p_.a.data + (row + r) * p_.a.stride + (begin + d) * size_of(p_.a.dtype);
  }

  // all but the sums; `bias` is room for that of the panel
  FinishArgs finish_of(int64_t row, int64_t n, int64_t column, int64_t columns, float* bias) const {
    FinishArgs f;
    f.n = columns;
    f.y_dtype = p_.c.dtype;
    f.residual_dtype = p_.residual.dtype;
    if (p_.bias) {
      convert(static_cast<const char*>(p_.bias) + column * size_of(p_.bias_dtype), p_.bias_dtype, bias, DType::kF32,
              columns);
      f.bias = bias;
    }
    f.rows = n;
    f.stream = plan_.streams;
    f.y = static_cast<char*>(p_.c.data) + (row * p_.c.stride + column) * size_of(p_.c.dtype);
    f.y_stride = p_.c.stride;
    if (p_.residual.data) {
      f.residual =
          static_cast<const char*>(p_.residual.data) + (row * p_.residual.stride + column) * size_of(p_.residual.dtype);
      f.residual_stride = p_.residual.stride;
    }
    return f;
  }

  const Product& p_;
  const Plan plan_;
  char* workspace_;
  ThreadPool& pool_;
};

bool is_product_type(DType t) { return t == DType::kBF16 || t == DType::kF32; }

void check(const Product& p) {
  PMETAL_ASSERT(p.rows >= 0 && p.cols >= 0 && p.depth >= 0, "[{}, {}] over {}", p.rows, p.cols, p.depth);
  PMETAL_ASSERT(is_product_type(p.a.dtype) && is_product_type(p.b.dtype) && is_product_type(p.c.dtype), "{} · {} -> {}",
                name_of(p.a.dtype), name_of(p.b.dtype), name_of(p.c.dtype));
  PMETAL_ASSERT(!p.accumulate || p.c.dtype == DType::kF32, "accumulation wants an f32 output, not {}",
                name_of(p.c.dtype));
  PMETAL_ASSERT(!p.residual.data || is_product_type(p.residual.dtype), "residual {}", name_of(p.residual.dtype));
  PMETAL_ASSERT(
      p.low_depth == 0 || (p.kernels->finishes && p.depth > 0 && p.a.dtype == DType::kBF16 &&
                           p.b.dtype == DType::kBF16 && p.low_a.dtype == DType::kBF16 && p.low_b.dtype == DType::kBF16),
      "{} has no second product", p.kernels->name);
}
void set_low(Product& p, const LowRank& low, BSource source) {
  if (low.rank == 0) return;
  p.low_depth = low.rank;
  p.low_a = {low.x.dtype, static_cast<const char*>(low.x.data), low.x.stride * size_of(low.x.dtype), false};
  p.low_b = {source,   low.w.dtype, static_cast<const char*>(low.w.data), low.w.stride * size_of(low.w.dtype),
             low.rank, p.cols};
}

const GemmKernels& chosen(const GemmKernels* kernels) { return kernels ? *kernels : kernels_for(isa()); }

Product product_of(const LinearForward& f) {
  Product p;
  p.kernels = &chosen(f.kernels);
  p.rows = f.m, p.cols = f.n, p.depth = f.k;
  p.a = {f.x.dtype, static_cast<const char*>(f.x.data), f.x.stride * size_of(f.x.dtype), false};
  p.b = {f.w.layout == WeightLayout::kPacked ? BSource::kPacked : BSource::kRows,
         f.w.dtype,
         static_cast<const char*>(f.w.data),
         f.w.stride * size_of(f.w.dtype),
         f.k,
         f.n};
  p.c = f.y;
  p.accumulate = f.accumulate;
  p.bias = f.bias, p.bias_dtype = f.bias_dtype;
  p.residual = f.residual;
  set_low(p, f.low, BSource::kRows);
  return p;
}

Product product_of(const LinearInputGrad& g) {
  Product p;
  p.kernels = &chosen(g.kernels);
  p.rows = g.m, p.cols = g.k, p.depth = g.n;
  p.a = {g.dy.dtype, static_cast<const char*>(g.dy.data), g.dy.stride * size_of(g.dy.dtype), false};
  p.b = {g.w.layout == WeightLayout::kPacked ? BSource::kPackedTransposed : BSource::kColumns,
         g.w.dtype,
         static_cast<const char*>(g.w.data),
         g.w.stride * size_of(g.w.dtype),
         g.n,
         g.k};
  p.c = g.dx;
  p.accumulate = g.accumulate;
  p.residual = g.residual;
  set_low(p, g.low, BSource::kColumns);
  return p;
}

Product product_of(const LinearWeightGrad& g) {
  Product p;
  p.kernels = &chosen(g.kernels);
  p.rows = g.n, p.cols = g.k, p.depth = g.m;
  p.a = {g.dy.dtype, static_cast<const char*>(g.dy.data), g.dy.stride * size_of(g.dy.dtype), true};
  p.b = {BSource::kColumns, g.x.dtype, static_cast<const char*>(g.x.data), g.x.stride * size_of(g.x.dtype), g.m, g.k};
  p.c = g.dw;
  p.accumulate = g.accumulate;
  return p;
}

// f64: the plain loops, cut over rows of C
void run_f64(const Product& p, ThreadPool& pool) {
  PMETAL_ASSERT(p.b.dtype == DType::kF64 && p.c.dtype == DType::kF64 && !p.bias && !p.residual.data,
                "f64 products take f64 operands, no bias and no residual");
  PMETAL_ASSERT(p.b.source == BSource::kRows || p.b.source == BSource::kColumns, "f64 weights are row-major");
  const int64_t a_stride = p.a.stride / 8, b_stride = p.b.stride / 8;
  StridedF64 b{reinterpret_cast<const double*>(p.b.data), b_stride, 1};
  if (p.b.source == BSource::kRows) std::swap(b.row, b.column);
  pool.parallel_for(p.rows, 1, [&](int64_t begin, int64_t end) {
    StridedF64 a{reinterpret_cast<const double*>(p.a.data), a_stride, 1};
    if (p.a.is_transposed) std::swap(a.row, a.column);
    a.data += begin * a.row;
    product_f64(end - begin, p.cols, p.depth, a, b, static_cast<double*>(p.c.data) + begin * p.c.stride, p.c.stride,
                p.accumulate);
  });
}

void run(const Product& p, void* workspace, ThreadPool& pool) {
  if (p.rows == 0 || p.cols == 0) return;
  if (p.a.dtype == DType::kF64) return run_f64(p, pool);
  check(p);
  Run(p, static_cast<char*>(workspace), pool)();
}

int64_t bytes(const Product& p, int n_threads) { return p.a.dtype == DType::kF64 ? 0 : plan_bytes(p, n_threads); }

}  // namespace

int64_t workspace_bytes(const LinearForward& args, int n_threads) { return bytes(product_of(args), n_threads); }
int64_t workspace_bytes(const LinearInputGrad& args, int n_threads) { return bytes(product_of(args), n_threads); }
int64_t workspace_bytes(const LinearWeightGrad& args, int n_threads) { return bytes(product_of(args), n_threads); }

void linear_forward(const LinearForward& args, void* workspace, ThreadPool& pool) {
  run(product_of(args), workspace, pool);
}
void linear_input_grad(const LinearInputGrad& args, void* workspace, ThreadPool& pool) {
  run(product_of(args), workspace, pool);
}
void linear_weight_grad(const LinearWeightGrad& args, void* workspace, ThreadPool& pool) {
  run(product_of(args), workspace, pool);
}

}  // namespace pmetal::cpu
