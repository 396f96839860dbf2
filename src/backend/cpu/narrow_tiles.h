// Products of a wide matrix m [T, N] with narrow ones, in one pass over m (ops/lora.h, LowGradArgs), on tiles:
//   out [T, r] = alpha · m · w,  w [N, r]            where `w` is given
//   g [N, r] or [r, N] += mᵀ · v (or vᵀ · m)         where `v` [T, r] is given
// m comes from memory once: that is what takes the time.
//   for each slab of 256 columns (a task):
//     rows, 32 at a time: sums of out over the slab, in tiles        A: m as it lies; B: w packed. A slab's own sums
//     strips of 32 columns: sums of g over all rows, in tiles        A: vᵀ packed; B: pairs of rows of m
//   then out: the slabs' sums in their order
// Bits depend on the shapes alone, and those of a row of out on that row and N.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "backend/cpu/attention_blocks.h"
#include "backend/cpu/gemm/kernels.h"
#include "backend/cpu/gemm/pack.h"
#include "backend/cpu/plain.h"
#include "backend/cpu/simd.h"
#include "ops/lora.h"

namespace pmetal::cpu {

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,avx2,f16c")

template <class Tiles>
class NarrowProducts {
 public:
  NarrowProducts(const GemmKernels& kernels, const ops::LowGradArgs& args) : k_(kernels), args_(args) {}

  static constexpr int64_t kMostRank = 64;

  int64_t workspace_bytes(int workers) const { return shared(nullptr).bytes + workers * scratch(nullptr).bytes; }

  void run(const KernelContext& kernel) const {
    const Shared s = shared(static_cast<char*>(kernel.workspace));
    if (gives_) pack_turned(s);
    const int64_t per_worker = scratch(nullptr).bytes;
    for_items(kernel, slabs_, [&](int64_t slab, int worker) {
      const Scratch w = scratch(static_cast<char*>(kernel.workspace) + s.bytes + worker * per_worker);
      Tiles tiles;
      tiles.configure(16, 16);
      if (makes_out_) project(tiles, slab, s, w);
      for (int64_t at = slab * kSlab; gives_ && at < std::min(columns_, (slab + 1) * kSlab); at += kStrip)
        add_gradient(tiles, at, s, w);
      tiles.release();
    });
    if (makes_out_) finish(kernel, s);
  }

 private:
  static constexpr int64_t kSlab = 256, kStrip = 32, kTile = 1024, kSums = 16 * 32;

  struct Shared {
    char* v;      // vᵀ in tiles: [r / 16][T / 32]
    float* sums;  // [slab][T, r]
    int64_t bytes;
  };
  Shared shared(char* data) const {
    Carver c(data);
    Shared s;
    s.v = c.take<char>(gives_ ? ranks_ * steps_ * kTile : 0);
    s.sums = c.take<float>(makes_out_ ? slabs_ * steps_ * 32 * ranks_ * 16 : 0);
    s.bytes = c.used();
    return s;
  }
  struct Scratch {
    char *w, *pairs, *edge;  // w of a slab in tiles; two B tiles, twice; a block of m at an edge
    float* sums;
    int64_t bytes;
  };
  Scratch scratch(char* data) const {
    Carver c(data);
    Scratch s;
    s.w = c.take<char>(makes_out_ ? ranks_ * kSlab / 32 * kTile : 0);
    s.pairs = c.take<char>(4 * kTile);
    s.edge = c.take<char>(2 * kTile);
    s.sums = c.take<float>(2 * kSums);
    s.bytes = c.used();
    return s;
  }

  // m's rows [32 step, ..) and columns [column, ..): where they lie, or a copy with zeros where 32 × 32 do not exist
  struct Block {
    const char* data;
    int64_t stride;
  };
  Block block(int64_t step, int64_t column, char* edge) const {
    const char* from = static_cast<const char*>(args_.m.data) + (step * 32 * row_ + column) * 2;
    const int64_t rows = std::min<int64_t>(32, tokens_ - step * 32), columns = std::min(kStrip, columns_ - column);
    if (rows == 32 && columns == kStrip) return {from, row_ * 2};
    std::memset(edge, 0, 2 * kTile);
    for (int64_t r = 0; r < rows; ++r)
      std::memcpy(edge + r * 64, from + r * row_ * 2, static_cast<size_t>(columns * 2));
    return {edge, 64};
  }

  void pack_turned(const Shared& s) const {
    const AOperand v{DType::kBF16, static_cast<const char*>(args_.v.data), args_.v.stride(0) * 2, true};
    const APacked packed{DType::kBF16, true, steps_ * 32};
    for (int64_t r = 0; r < ranks_; ++r)
      pack_a(k_, v, packed, r * 16, std::min<int64_t>(16, rank_ - r * 16), 0, tokens_, s.v + r * packed.group_bytes());
  }

  void project(Tiles& tiles, int64_t slab, const Shared& s, const Scratch& w) const {
    const int64_t first = slab * kSlab, width = std::min(kSlab, columns_ - first), strips = padded(width, 32) / 32;
    const BOperand b{args_.w_is_turned ? BSource::kRows : BSource::kColumns,
                     DType::kBF16,
                     static_cast<const char*>(args_.w.data),
                     args_.w.stride(0) * 2,
                     columns_,
                     rank_};
    pack_b(k_, b, 0, ranks_, first, width, w.w);
    const int64_t block_bytes = b_block_bytes(DType::kBF16, width);
    float* sums = s.sums + slab * steps_ * 32 * ranks_ * 16;
    for (int64_t step = 0; step < steps_; ++step) {
      fetch(step + 2, first, width);
      for (int64_t r = 0; r < ranks_; ++r) {
        tiles.template zero<0>();
        tiles.template zero<2>();
        for (int64_t i = 0; i < strips; ++i) {
          const Block m = block(step, first + i * kStrip, w.edge);
          tiles.template load<6>(w.w + r * block_bytes + i * kTile, 64);
          tiles.template load<4>(m.data, m.stride);
          tiles.template dot<0, 4, 6>();
          tiles.template load<5>(m.data + 16 * m.stride, m.stride);
          tiles.template dot<2, 5, 6>();
        }
        char* to = reinterpret_cast<char*>(sums + (step * ranks_ + r) * kSums);
        tiles.template store<0>(to, 64);
        tiles.template store<2>(to + 16 * 64, 64);
      }
    }
  }

  // the lines of a slab of 32 rows, before they are needed
  void fetch(int64_t step, int64_t first, int64_t width) const {
    const char* from = static_cast<const char*>(args_.m.data) + (step * 32 * row_ + first) * 2;
    for (int64_t r = step * 32; r < std::min(tokens_, step * 32 + 32); ++r, from += row_ * 2)
      for (int64_t i = 0; i < width * 2; i += 64) _mm_prefetch(from + i, _MM_HINT_T0);
  }

  void add_gradient(Tiles& tiles, int64_t column, const Shared& s, const Scratch& w) const {
    const bool is_first = column % kSlab == 0 && !makes_out_;
    for (int64_t r = 0; r < ranks_; r += 2) {
      const bool is_pair = r + 1 < ranks_;
      const char *v0 = s.v + r * steps_ * kTile, *v1 = v0 + steps_ * kTile;
      tiles.template zero<0>();
      tiles.template zero<1>();
      tiles.template zero<2>();
      tiles.template zero<3>();
      for (int64_t step = 0; step < steps_; ++step) {
        if (is_first && r == 0) fetch(step + 2, column, std::min(kSlab, columns_ - column));
        char* pairs = w.pairs + step % 2 * 2 * kTile;
        interleave(block(step, column, w.edge), pairs);
        tiles.template load<6>(pairs, 64);
        tiles.template load<7>(pairs + kTile, 64);
        tiles.template load<4>(v0 + step * kTile, 64);
        tiles.template dot<0, 4, 6>();
        tiles.template dot<1, 4, 7>();
        if (!is_pair) continue;
        tiles.template load<5>(v1 + step * kTile, 64);
        tiles.template dot<2, 5, 6>();
        tiles.template dot<3, 5, 7>();
      }
      char* sums = reinterpret_cast<char*>(w.sums);
      tiles.template store<0>(sums, 128);
      tiles.template store<1>(sums + 64, 128);
      if (is_pair) {
        tiles.template store<2>(sums + kSums * 4, 128);
        tiles.template store<3>(sums + kSums * 4 + 64, 128);
      }
      for (int64_t i = 0; i < (is_pair ? 2 : 1); ++i) add_sums(w.sums + i * kSums, (r + i) * 16, column);
    }
  }

  // 32 rows of 32 as two B tiles of row pairs. Columns 0-3, 8-11, 16-19, 24-27 make the first: no lane is crossed.
  static void interleave(const Block& m, char* to) {
    for (int64_t p = 0; p < 16; ++p) {
      const __m512i even = _mm512_loadu_si512(m.data + 2 * p * m.stride);
      const __m512i odd = _mm512_loadu_si512(m.data + (2 * p + 1) * m.stride);
      _mm512_store_si512(to + p * 64, _mm512_unpacklo_epi16(even, odd));
      _mm512_store_si512(to + kTile + p * 64, _mm512_unpackhi_epi16(even, odd));
    }
  }

  // [16 ranks, 32 columns as interleave() left them] to g
  void add_sums(const float* sums, int64_t rank, int64_t column) const {
    const __m512i low = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
    const __m512i high = _mm512_set_epi32(31, 30, 29, 28, 15, 14, 13, 12, 27, 26, 25, 24, 11, 10, 9, 8);
    alignas(64) float rows[16][32], turned[16 * 16];
    for (int64_t i = 0; i < 16; ++i) {
      const __m512 a = _mm512_loadu_ps(sums + i * 32), b = _mm512_loadu_ps(sums + i * 32 + 16);
      _mm512_store_ps(rows[i], _mm512_permutex2var_ps(a, low, b));
      _mm512_store_ps(rows[i] + 16, _mm512_permutex2var_ps(a, high, b));
    }
    auto* g = static_cast<float*>(args_.g.data);
    const int64_t ranks = std::min<int64_t>(16, rank_ - rank);
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t first = column + half * 16, n = std::min<int64_t>(16, columns_ - first);
      if (n <= 0) return;
      if (args_.g_is_turned) {
        for (int64_t i = 0; i < ranks; ++i) add_row(rows[i] + half * 16, n, g + (rank + i) * args_.g.stride(0) + first);
        continue;
      }
      k_.transpose16(rows[0] + half * 16, 128, turned, 64);
      for (int64_t i = 0; i < n; ++i) add_row(turned + i * 16, ranks, g + (first + i) * args_.g.stride(0) + rank);
    }
  }
  static void add_row(const float* from, int64_t n, float* to) {
    const __mmask16 mask = Avx512::mask(n);
    _mm512_mask_storeu_ps(to, mask, _mm512_maskz_loadu_ps(mask, to) + _mm512_maskz_loadu_ps(mask, from));
  }

  void finish(const KernelContext& kernel, const Shared& s) const {
    const F alpha = Avx512::all(args_.alpha);
    for_items(kernel, steps_, [&](int64_t step, int) {
      for (int64_t r = 0; r < ranks_; ++r)
        for (int64_t i = 0; i < std::min<int64_t>(32, tokens_ - step * 32); ++i) {
          F sum = Avx512::all(0);
          for (int64_t slab = 0; slab < slabs_; ++slab)
            sum = sum + _mm512_load_ps(s.sums + ((slab * steps_ + step) * ranks_ + r) * kSums + i * 16);
          BF16* to = static_cast<BF16*>(args_.out.data) + (step * 32 + i) * args_.out.stride(0) + r * 16;
          Avx512Bf16::store(to, sum * alpha, std::min<int64_t>(16, rank_ - r * 16));
        }
    });
  }

  using F = __m512;
  const GemmKernels& k_;
  const ops::LowGradArgs& args_;
  bool makes_out_ = static_cast<bool>(args_.out), gives_ = static_cast<bool>(args_.g);
  int64_t tokens_ = args_.m.dim(0), columns_ = args_.m.dim(1),
          row_ = args_.m.dim(0) <= 1 ? columns_ : args_.m.stride(0);
  int64_t rank_ = makes_out_ ? args_.out.dim(1) : args_.v.dim(1);
  int64_t ranks_ = padded(rank_, 16) / 16, steps_ = padded(tokens_, 32) / 32, slabs_ = padded(columns_, kSlab) / kSlab;
};

#pragma GCC pop_options

}  // namespace pmetal::cpu
