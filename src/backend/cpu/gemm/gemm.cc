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

#include "backend/cpu/gemm/plan.h"
#include "base/error.h"

namespace pmetal::cpu {
namespace {

constexpr int64_t kSerialPack = 32768;  // elements of A that one worker packs faster than it wakes others

int64_t plan_bytes(const Product& p, int n_threads) {
  if (p.rows == 0 || p.cols() == 0) return 0;
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
    for (int part = 0; part < p_.n_parts; ++part) pack_low_a(part);
    if (p_.norm && !plan_.packs_a) {
      char* rows = workspace_ + plan_.a_bytes + plan_.low_a_bytes;
      const int64_t stride = p_.depth * size_of(p_.a.dtype);
      for (int64_t r = 0; r < p_.rows; ++r) norm_row(r, rows + r * stride);
      p_.a = {p_.a.dtype, rows, stride, false};
    }
    for (int64_t d = 0; d == 0 || d < p_.depth; d += plan_.depth_piece) {
      const int64_t length = std::min(plan_.depth_piece, p_.depth - d);
      for (int64_t r = 0; r < p_.rows; r += plan_.row_piece)
        piece(r, std::min(plan_.row_piece, p_.rows - r), d, length);
      if (p_.depth == 0) break;
    }
  }

 private:
  // the second product's A of a part, in tiles
  char* low_a(int part) const {
    char* at = workspace_ + plan_.a_bytes;
    for (int i = 0; i < part; ++i)
      if (p_.parts[static_cast<size_t>(i)].low_depth > 0)
        at += divide_up(p_.rows, 16) * plan_.low_a[static_cast<size_t>(i)].group_bytes();
    return at;
  }
  void pack_low_a(int index) const {
    const Part& part = p_.parts[static_cast<size_t>(index)];
    if (part.low_depth == 0) return;
    const APacked& packed = plan_.low_a[static_cast<size_t>(index)];
    for (int64_t g = 0; g < divide_up(p_.rows, 16); ++g)
      pack_a(*p_.kernels, part.low_a, packed, g * 16, std::min<int64_t>(16, p_.rows - g * 16), 0, part.low_depth,
             low_a(index) + g * packed.group_bytes());
  }

  void norm_row(int64_t row, char* to) const {
    p_.norm.row(p_.a.data + row * p_.a.stride, p_.norm.weight, p_.norm.eps, p_.depth, to);
  }
  // rows [row, row + n) after the norm as a group of packed A
  void pack_normed(int64_t row, int64_t n, char* to) const {
    alignas(64) char line[kMostNormed * 2];
    for (int64_t r = 0; r < n; ++r) {
      norm_row(row + r, line);
      pack_a(*p_.kernels, {p_.a.dtype, line, 0, false}, plan_.a_packed, 0, 1, 0, p_.depth,
             to + r * plan_.a_packed.row_stride());
    }
  }

  void piece(int64_t row, int64_t n_rows, int64_t begin, int64_t length) {
    if (plan_.packs_a) {
      const auto pack = [&](int64_t first, int64_t last) {
        for (int64_t g = first; g < last; ++g) {
          char* to = workspace_ + g * plan_.a_packed.group_bytes();
          const int64_t n = std::min<int64_t>(16, n_rows - g * 16);
          if (p_.norm)
            pack_normed(row + g * 16, n, to);
          else
            pack_a(*p_.kernels, p_.a, plan_.a_packed, row + g * 16, n, begin, length, to);
        }
      };
      const int64_t groups = divide_up(n_rows, 16);
      if (n_rows * length <= kSerialPack)
        pack(0, groups);
      else
        pool_.parallel_for(groups, 1, pack);
    }
    if (plan_.stage_blocks > 0) return staged(row, n_rows, begin, length);
    const int64_t row_blocks = divide_up(n_rows, plan_.block_rows);
    const int64_t supers = divide_up(plan_.blocks, plan_.super_blocks);
    const auto work = [&](int worker, int64_t t) {
      const int64_t r = t / supers * plan_.block_rows;
      task(worker, row, r, std::min(plan_.block_rows, n_rows - r), t % supers * plan_.super_blocks, begin, length);
    };
    const int64_t n_tasks = row_blocks * supers;
    if (n_tasks == 1 || n_rows * length * p_.cols() <= kSerialPack) {
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
    const int64_t blocks = plan_.blocks, width = plan_.stage_blocks, panel = plan_.panel;
    const int64_t chunks = divide_up(length, plan_.chunk), across = divide_up(blocks, width);
    const int64_t n_stages = divide_up(n_rows, plan_.block_rows) * across * chunks;
    const int64_t in_range = divide_up(width / panel, n_ranges);
    char* shared = workspace_ + plan_.a_bytes + plan_.low_a_bytes + plan_.norm_bytes;
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
            // what comes next: the range's next panel, or its first one of the next chunk
            const int64_t own = first + range * in_range * panel;
            const int64_t end = std::min({own + in_range * panel, first + width, blocks});
            const Strips next = block + panel < end        ? strips(block + panel, n_blocks, begin, d, length)
                                : d + plan_.chunk < length ? strips(own, n_blocks, begin, d + plan_.chunk, length)
                                                           : strips(own + width, n_blocks, begin, 0, length);
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
    const int64_t end = std::min(block + plan_.super_blocks, plan_.blocks);
    const auto one = [&](int64_t v, int64_t d, int64_t place, const Strips& next) {
      do_panel(worker, {row, r, n, v, width_at(v, end), begin, d, length}, c + round_up(n, 16) * place * 16, next);
    };
    if (!plan_.is_depth_outer) {
      for (int64_t v = block; v < end; v += width_at(v, end)) {
        const int64_t width = width_at(v, end);
        for (int64_t d = 0; d == 0 || d < length; d += plan_.chunk)
          one(v, d, 0,
              d + plan_.chunk < length ? strips(v, width, begin, d + plan_.chunk, length)
                                       : strips(v + width, width, begin, 0, length));
      }
      return;
    }
    for (int64_t d = 0; d == 0 || d < length; d += plan_.chunk)
      for (int64_t v = block; v < end; v += width_at(v, end)) {
        const int64_t width = width_at(v, end);
        const Strips next = v + width < end            ? strips(v + width, width, begin, d, length)
                            : d + plan_.chunk < length ? strips(block, width, begin, d + plan_.chunk, length)
                                                       : strips(end, width, begin, 0, length);
        one(v, d, v - block, next);
      }
  }

  // Where the block `v` of the count over all parts lies: its part, its number there, and how far the part's run goes.
  struct Place {
    int part;
    int64_t block, end;
  };
  Place place_of(int64_t v) const {
    if (p_.is_gated) {
      const int64_t panel = v / plan_.panel;
      return {static_cast<int>(panel % 2), panel / 2 * plan_.panel + v % plan_.panel, (panel + 1) * plan_.panel};
    }
    int part = p_.n_parts - 1;
    while (part > 0 && plan_.first_block[static_cast<size_t>(part)] > v) --part;
    const auto at = static_cast<size_t>(part);
    return {part, v - plan_.first_block[at], part + 1 < p_.n_parts ? plan_.first_block[at + 1] : plan_.blocks};
  }
  const Part& part_at(const Place& at) const { return p_.parts[static_cast<size_t>(at.part)]; }
  // of the panel that begins at v, within a super block that ends at `end`
  int64_t width_at(int64_t v, int64_t end) const { return std::min({plan_.panel, end - v, place_of(v).end - v}); }

  char* scratch_of(int worker) const { return workspace_ + plan_.shared_bytes() + worker * plan_.worker_bytes(); }

  struct Panel {
    int64_t row, r, n;         // rows [r, r + n) of the piece of A that begins at `row`
    int64_t block, n_blocks;   // columns
    int64_t begin, d, length;  // chunk d of a piece of the depth
  };
  // `c`: where its sums are kept from chunk to chunk when they are not in place
  void do_panel(int worker, const Panel& p, float* c, const Strips& next) {
    const Place at = place_of(p.block);
    const Part& part = part_at(at);
    const int64_t n_blocks = std::min(p.n_blocks, part.blocks() - at.block);
    if (n_blocks <= 0) return;  // what a part is filled up with
    char* scratch = scratch_of(worker);
    const int64_t column = at.block * 16, width = std::min(n_blocks * 16, part.cols - column);
    const bool in_place = part.c.dtype == DType::kF32 && !(plan_.streams && !p_.accumulate) && width % 16 == 0 &&
                          !part.bias && !part.residual.data && !p_.finish &&
                          !(plan_.tiled && part.c.stride % 1024 == 0);  // 16 rows of a tile in one set of L1
    const bool continues = p_.accumulate || p.begin > 0, is_last = p.d + plan_.chunk >= p.length;
    BlockArgs s;
    s.rows = p.n;
    s.n_blocks = n_blocks;
    s.depth = std::min(plan_.chunk, p.length - p.d);
    s.from_zero = !continues && p.d == 0;
    s.c = in_place ? static_cast<float*>(part.c.data) + (p.row + p.r) * part.c.stride + column : c;
    s.c_stride = in_place ? part.c.stride : plan_.panel * 16;
    s.b_next = next;
    place_a(s, p.row, p.r, p.begin, p.d);
    if (p.d == 0 && (p.length == 0 || (continues && !in_place)))
      begin_panel(s, part, p.row + p.r, column, width, continues);
    if (part.low_depth > 0 && is_last)
      s.low = pack_low(at, p.row + p.r, n_blocks, scratch + plan_.worker_bytes() - plan_.low_b_bytes);
    FinishArgs last;
    const auto finish = p_.finish && at.part == p_.n_parts - 1 ? p_.finish : p_.kernels->finish;
    if (!in_place && is_last) last = finish_of(at, p.row + p.r, p.n, width, scratch + plan_.b_bytes + plan_.c_bytes);
    if (!in_place && is_last && plan_.finishes && p.length > 0) {
      s.last = &last;
      s.finish = finish;
    }
    if (p.length > 0 && plan_.packs_b) {
      pack_b(*p_.kernels, part.b, at.block, n_blocks, p.begin + p.d, s.depth, scratch);
      s.b = scratch;
      s.b_stride = b_block_bytes(part.b.dtype, s.depth);
      plan_.block(s);
    } else if (p.length > 0) {  // lines of 64 bytes: one k of f32, two of bf16
      s.b_stride = packed_weight_bytes(part.b.dtype, 16, p_.depth);
      s.b = part.b.data + at.block * s.b_stride + (p.begin + p.d) * 16 * size_of(part.b.dtype);
      plan_.block(s);
    }
    if (!in_place && is_last && !s.last) {
      last.c = s.c;
      last.c_stride = s.c_stride;
      finish(last);
    }
  }

  // the second product of a panel, its B packed to `to`
  BlockArgs::Low pack_low(const Place& at, int64_t row, int64_t n_blocks, char* to) const {
    const Part& part = part_at(at);
    const APacked& a = plan_.low_a[static_cast<size_t>(at.part)];
    pack_b(*p_.kernels, part.low_b, at.block, n_blocks, 0, part.low_depth, to);
    return {a.depth_padded, low_a(at.part) + row / 16 * a.group_bytes(), to, a.group_bytes(),
            b_block_bytes(DType::kBF16, part.low_depth)};
  }

  // the sums so far, or zeros, into the panel's C
  void begin_panel(const BlockArgs& s, const Part& part, int64_t row, int64_t column, int64_t width,
                   bool continues) const {
    for (int64_t i = 0; i < s.rows; ++i) {
      float* to = s.c + i * s.c_stride;
      const float* old = static_cast<const float*>(part.c.data) + (row + i) * part.c.stride + column;
      if (!continues)
        std::fill_n(to, width, 0.f);
      else if (to != old)
        std::memcpy(to, old, static_cast<size_t>(width) * sizeof(float));
    }
  }

  // B of n_panel blocks from v on at a chunk of the depth, as what is read next; nothing behind the last block
  Strips strips(int64_t v, int64_t n_panel, int64_t begin, int64_t d, int64_t length) const {
    if (v >= plan_.blocks) return {};
    const Place at = place_of(v);
    const Part& part = part_at(at);
    if (at.block >= part.blocks()) return {};
    const BOperand& b = part.b;
    n_panel = std::min(n_panel, part.blocks() - at.block);
    const int64_t depth = std::min(plan_.chunk, length - d), line = 16 * size_of(b.dtype);  // bytes of one k
    if (b.source == BSource::kPacked) {
      const int64_t stride = packed_weight_bytes(b.dtype, 16, p_.depth);
      return {b.data + at.block * stride + (begin + d) * line, n_panel, depth * line, stride};
    }
    if (b.source == BSource::kPackedTransposed && b.dtype == DType::kBF16) {  // tiles of 32 columns
      const int64_t tiles = divide_up(b.cols, 32), group = (begin + d) / 16;
      const int64_t groups = std::min(divide_up(depth, 16), divide_up(b.depth, 16) - group);
      return {b.data + (group * tiles + at.block / 2) * 1024, groups,
              std::min(divide_up(n_panel, 2), tiles - at.block / 2) * 1024, tiles * 1024};
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

  // all but the sums; `scratch` is room for the panel's bias and then for what gates
  FinishArgs finish_of(const Place& at, int64_t row, int64_t n, int64_t columns, char* scratch) const {
    const Part& part = part_at(at);
    const int64_t column = at.block * 16;
    FinishArgs f;
    f.n = columns;
    f.rows = n;
    if (part.bias) {
      float* bias = reinterpret_cast<float*>(scratch);
      convert(static_cast<const char*>(part.bias) + column * size_of(part.bias_dtype), part.bias_dtype, bias,
              DType::kF32, columns);
      f.bias = bias;
    }
    if (part.residual.data) {
      f.residual = static_cast<const char*>(part.residual.data) +
                   (row * part.residual.stride + column) * size_of(part.residual.dtype);
      f.residual_stride = part.residual.stride;
      f.residual_dtype = part.residual.dtype;
    }
    if (p_.is_gated) {
      auto* gate = reinterpret_cast<uint16_t*>(scratch + plan_.bias_bytes);
      const int64_t stride = plan_.panel * 16;
      if (at.part == 0) {
        f.y = gate, f.y_dtype = DType::kBF16, f.y_stride = stride;
        return f;
      }
      f.gate = gate, f.gate_stride = stride;
    }
    const Matrix& c = p_.is_gated ? p_.first().c : part.c;
    f.stream = plan_.streams;
    f.y = static_cast<char*>(c.data) + (row * c.stride + column) * size_of(c.dtype);
    f.y_dtype = c.dtype;
    f.y_stride = c.stride;
    return f;
  }

  Product p_;
  const Plan plan_;
  char* workspace_;
  ThreadPool& pool_;
};

bool is_product_type(DType t) { return t == DType::kBF16 || t == DType::kF32; }

void check(const Product& p) {
  PMETAL_ASSERT(p.rows >= 0 && p.depth >= 0, "{} rows over {}", p.rows, p.depth);
  for (const Part& part : p.used()) {
    PMETAL_ASSERT(part.cols >= 0, "{} columns", part.cols);
    PMETAL_ASSERT(is_product_type(p.a.dtype) && is_product_type(part.b.dtype) && is_product_type(part.c.dtype),
                  "{} · {} -> {}", name_of(p.a.dtype), name_of(part.b.dtype), name_of(part.c.dtype));
    PMETAL_ASSERT(part.b.dtype == p.first().b.dtype && part.b.source == p.first().b.source, "parts of two kinds");
    PMETAL_ASSERT(!p.accumulate || part.c.dtype == DType::kF32, "accumulation wants an f32 output, not {}",
                  name_of(part.c.dtype));
    PMETAL_ASSERT(!part.residual.data || is_product_type(part.residual.dtype), "residual {}",
                  name_of(part.residual.dtype));
    PMETAL_ASSERT(part.low_depth == 0 || (p.kernels->finishes && p.depth > 0 && p.a.dtype == DType::kBF16 &&
                                          part.b.dtype == DType::kBF16 && part.low_a.dtype == DType::kBF16 &&
                                          part.low_b.dtype == DType::kBF16),
                  "{} has no second product", p.kernels->name);
  }
}
void set_low(Part& part, const LowRank& low, BSource source) {
  if (low.rank == 0) return;
  part.low_depth = low.rank;
  part.low_a = {low.x.dtype, static_cast<const char*>(low.x.data), low.x.stride * size_of(low.x.dtype), false};
  part.low_b = {source,   low.w.dtype, static_cast<const char*>(low.w.data), low.w.stride * size_of(low.w.dtype),
                low.rank, part.cols};
}

const GemmKernels& chosen(const GemmKernels* kernels) { return kernels ? *kernels : kernels_for(isa()); }

AOperand a_of(const ConstMatrix& m, bool is_transposed = false) {
  return {m.dtype, static_cast<const char*>(m.data), m.stride * size_of(m.dtype), is_transposed};
}

Part forward_part(const WeightMatrix& w, int64_t n, int64_t k) {
  Part part;
  part.cols = n;
  part.b = {w.layout == WeightLayout::kPacked ? BSource::kPacked : BSource::kRows,
            w.dtype,
            static_cast<const char*>(w.data),
            w.stride * size_of(w.dtype),
            k,
            n};
  return part;
}

Product product_of(const LinearForward& f) {
  Product p;
  p.kernels = &chosen(f.kernels);
  p.rows = f.m, p.depth = f.k;
  p.a = a_of(f.x);
  p.accumulate = f.accumulate;
  Part& part = p.parts[0] = forward_part(f.w, f.n, f.k);
  part.c = f.y;
  part.bias = f.bias, part.bias_dtype = f.bias_dtype;
  part.residual = f.residual;
  set_low(part, f.low, BSource::kRows);
  return p;
}

Product product_of(const LinearGroup& g) {
  Product p;
  p.kernels = &chosen(g.kernels);
  p.rows = g.m, p.depth = g.k;
  p.a = a_of(g.x);
  p.norm = g.norm;
  p.n_parts = g.n_parts;
  p.is_gated = g.is_gated;
  p.finish = g.finish;
  for (size_t i = 0; i < static_cast<size_t>(g.n_parts); ++i) {
    const LinearGroup::Part& from = g.parts[i];
    Part& part = p.parts[i] = forward_part(from.w, from.n, g.k);
    part.c = from.y;
    part.bias = from.bias, part.bias_dtype = from.bias_dtype;
    part.residual = from.residual;
    set_low(part, from.low, BSource::kRows);
  }
  if (g.is_gated) p.parts[1].c = p.parts[0].c;
  return p;
}

Product product_of(const LinearInputGrad& g) {
  Product p;
  p.kernels = &chosen(g.kernels);
  p.rows = g.m, p.depth = g.n;
  p.a = a_of(g.dy);
  p.accumulate = g.accumulate;
  Part& part = p.parts[0];
  part.cols = g.k;
  part.b = {g.w.layout == WeightLayout::kPacked ? BSource::kPackedTransposed : BSource::kColumns,
            g.w.dtype,
            static_cast<const char*>(g.w.data),
            g.w.stride * size_of(g.w.dtype),
            g.n,
            g.k};
  part.c = g.dx;
  part.residual = g.residual;
  set_low(part, g.low, BSource::kColumns);
  return p;
}

Product product_of(const LinearWeightGrad& g) {
  Product p;
  p.kernels = &chosen(g.kernels);
  p.rows = g.n, p.depth = g.m;
  p.a = a_of(g.dy, true);
  p.accumulate = g.accumulate;
  Part& part = p.parts[0];
  part.cols = g.k;
  part.b = {
      BSource::kColumns, g.x.dtype, static_cast<const char*>(g.x.data), g.x.stride * size_of(g.x.dtype), g.m, g.k};
  part.c = g.dw;
  return p;
}

// f64: the plain loops, cut over rows of C
void run_f64(const Product& p, ThreadPool& pool) {
  const Part& part = p.first();
  PMETAL_ASSERT(part.b.dtype == DType::kF64 && part.c.dtype == DType::kF64 && !part.bias && !part.residual.data,
                "f64 products take f64 operands, no bias and no residual");
  PMETAL_ASSERT(part.b.source == BSource::kRows || part.b.source == BSource::kColumns, "f64 weights are row-major");
  const int64_t a_stride = p.a.stride / 8, b_stride = part.b.stride / 8;
  StridedF64 b{reinterpret_cast<const double*>(part.b.data), b_stride, 1};
  if (part.b.source == BSource::kRows) std::swap(b.row, b.column);
  pool.parallel_for(p.rows, 1, [&](int64_t begin, int64_t end) {
    StridedF64 a{reinterpret_cast<const double*>(p.a.data), a_stride, 1};
    if (p.a.is_transposed) std::swap(a.row, a.column);
    a.data += begin * a.row;
    product_f64(end - begin, part.cols, p.depth, a, b, static_cast<double*>(part.c.data) + begin * part.c.stride,
                part.c.stride, p.accumulate);
  });
}

void run(const Product& p, void* workspace, ThreadPool& pool) {
  if (p.rows == 0 || p.cols() == 0) return;
  if (p.a.dtype == DType::kF64) return run_f64(p, pool);
  check(p);
  Run(p, static_cast<char*>(workspace), pool)();
}

int64_t bytes(const Product& p, int n_threads) { return p.a.dtype == DType::kF64 ? 0 : plan_bytes(p, n_threads); }

}  // namespace

int64_t workspace_bytes(const LinearForward& args, int n_threads) { return bytes(product_of(args), n_threads); }
int64_t workspace_bytes(const LinearGroup& args, int n_threads) { return bytes(product_of(args), n_threads); }
int64_t workspace_bytes(const LinearInputGrad& args, int n_threads) { return bytes(product_of(args), n_threads); }
int64_t workspace_bytes(const LinearWeightGrad& args, int n_threads) { return bytes(product_of(args), n_threads); }

void linear_forward(const LinearForward& args, void* workspace, ThreadPool& pool) {
  run(product_of(args), workspace, pool);
}
void linear_group(const LinearGroup& args, void* workspace, ThreadPool& pool) {
  run(product_of(args), workspace, pool);
}
void linear_input_grad(const LinearInputGrad& args, void* workspace, ThreadPool& pool) {
  run(product_of(args), workspace, pool);
}
void linear_weight_grad(const LinearWeightGrad& args, void* workspace, ThreadPool& pool) {
  run(product_of(args), workspace, pool);
}

}  // namespace pmetal::cpu
