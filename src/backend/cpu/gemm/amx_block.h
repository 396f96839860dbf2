// The AMX inner kernel over a layer of eight tile registers, so that the same packing and indexing runs on the hardware
// (gemm_amx.cc) and on the emulation of the documented semantics (amx_emulated.h, for tests on any machine).
//
//            B0   B1        C tiles 16 rows × 16 outputs f32: tmm 0..3
//      A0    0    1         A tiles 16 rows × 32 k bf16:      tmm 4, 5
//      A1    2    3         B tiles 16 k pairs × 16 outputs:  tmm 6, 7 (a bf16_tile block is such a tile)
//
// Four loads feed four TDPBF16PS. The B panel (2 blocks × 16 tiles = 32 KiB) stays in L1 while the rows of A go by; A
// is loaded with the non-temporal hint so that it does not evict the panel. 16 rows × 4 blocks, which read half as much
// of A, were slower on every shape (bench/kernels/cpu_gemm.md).
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "backend/cpu/gemm/kernels.h"

namespace pmetal::cpu {

// How A and B reach the registers.
struct AmxTuning {
  bool stream_a = true;       // A with the non-temporal hint, so that it does not evict the panel
  int64_t prefetch_a = 0;     // bytes ahead that A is prefetched into L1; 0: not
  int64_t prefetch_b = 8192;  // bytes ahead, where B streams from memory
};

template <class Tiles, AmxTuning kTuning>
class AmxBlock {
 public:
  static void run(const BlockArgs& s) {
    if (s.rows <= 0 || s.n_blocks <= 0) return;
    Tiles tiles;
    const int64_t full = s.rows / 32 * 32, rest = s.rows - full;
    if (full > 0) {
      tiles.configure(16, 16);
      columns<2>(tiles, s, 0, full);
    }
    BlockArgs last = s;
    if (full > 0) last.b_next = {};  // it is there by now
    if (rest > 16) {
      tiles.configure(16, static_cast<int>(rest - 16));
      columns<2>(tiles, last, full, s.rows);
    } else if (rest > 0) {
      tiles.configure(static_cast<int>(rest), 0);
      columns<1>(tiles, last, full, s.rows);
    }
    tiles.release();
  }

 private:
  static constexpr int64_t kStreamRows = 32;  // up to which B streams from memory

  // The next panel into L2, a few lines in each step: many at once would take the buffers that A's lines come through.
  class Prefetch {
   public:
    Prefetch(const Strips& what, int64_t steps)
        : what_(what), left_(what.data ? what.count * (what.bytes / 64) : 0), lines_((left_ + steps - 1) / steps) {}
    void step() {
      for (int64_t n = std::min(lines_, left_); n > 0; --n) {
        _mm_prefetch(what_.data + at_, _MM_HINT_T1);
        at_ += 64;
        if (at_ >= what_.bytes) at_ = 0, what_.data += what_.stride;
        --left_;
      }
    }

   private:
    Strips what_;
    int64_t left_, lines_, at_ = 0;
  };

  template <int T>
  static void load_a(Tiles& tiles, const char* a, int64_t stride) {
    if constexpr (kTuning.prefetch_a > 0)
      for (int line = 0; line < 16; ++line) _mm_prefetch(a + kTuning.prefetch_a + line * 64, _MM_HINT_T0);
    if constexpr (kTuning.stream_a)
      tiles.template stream_load<T>(a, stride);
    else
      tiles.template load<T>(a, stride);
  }

  template <int MT>
  static void columns(Tiles& tiles, const BlockArgs& s, int64_t row_begin, int64_t row_end) {
    int64_t j = 0;
    if (s.rows <= kStreamRows) {  // memory is what takes the time, and one stream is faster than two
      for (; j < s.n_blocks; ++j) rows<MT, 1>(tiles, s, j, row_begin, row_end);
      return;
    }
    for (; j + 2 <= s.n_blocks; j += 2) rows<MT, 2>(tiles, s, j, row_begin, row_end);
    if (j < s.n_blocks) rows<MT, 1>(tiles, s, j, row_begin, row_end);
  }

  // One line of each of `count` rows into L1, two in each step
  struct Lines {
    const char* at = nullptr;
    int64_t stride = 0, count = 0;
    void step() {
      for (int i = 0; i < 2 && count > 0; ++i, --count, at += stride) _mm_prefetch(at, _MM_HINT_T0);
    }
  };

  // The sums of 32 rows on their way to `finish`: those of one group are finished, a few rows in each step, while the
  // tiles work on the next. What is between the steps runs beside the products; a row after them would not.
  class Finish {
   public:
    Finish(const BlockArgs& s, int64_t j, int64_t columns, int64_t row_end)
        : s_(s), column_(j * 16), columns_(columns), row_end_(row_end), per_step_(divide(32, divide(s.depth, 32))) {}
    float* next() { return sums_[turn_]; }
    // what will be added to the 32 rows from `row` on, as lines to fetch meanwhile
    Lines added_to(int64_t row) const {
      const FinishArgs& f = *s_.last;
      if (!f.residual || f.residual_dtype != DType::kBF16) return {};
      const char* rows = static_cast<const char*>(f.residual);
      return {rows + (row * f.residual_stride + column_) * 2, f.residual_stride * 2,
              std::min<int64_t>(32, row_end_ - row)};
    }
    void stored(int64_t row) {
      done();
      pending_ = *s_.last;
      left_ = std::min<int64_t>(32, row_end_ - row);
      pending_.n = std::min<int64_t>(columns_, pending_.n - column_);
      pending_.c = sums_[turn_];
      pending_.c_stride = 32;
      if (pending_.bias) pending_.bias += column_;
      skip(row, column_);
      turn_ ^= 1;
    }
    void step() {
      if (left_ > 0) finish(std::min(per_step_, left_));
    }
    void done() {
      if (left_ > 0) finish(left_);
    }

   private:
    static int64_t divide(int64_t n, int64_t by) { return (n + by - 1) / by; }
    void skip(int64_t rows, int64_t columns) {
      FinishArgs& f = pending_;
      if (f.residual)
        f.residual = static_cast<const char*>(f.residual) +
                     (rows * f.residual_stride + columns) * (f.residual_dtype == DType::kBF16 ? 2 : 4);
      if (f.gate) f.gate += rows * f.gate_stride + columns;
      f.y = static_cast<char*>(f.y) + (rows * f.y_stride + columns) * (f.y_dtype == DType::kBF16 ? 2 : 4);
    }
    void finish(int64_t rows) {
      pending_.rows = rows;
      s_.finish(pending_);
      left_ -= rows;
      pending_.c += rows * 32;
      skip(rows, 0);
    }

    const BlockArgs& s_;
    int64_t column_, columns_, row_end_, per_step_, left_ = 0;
    int turn_ = 0;
    FinishArgs pending_;
    alignas(64) float sums_[2][32 * 32];
  };

  template <int MT, int NT>
  static void rows(Tiles& tiles, const BlockArgs& s, int64_t j, int64_t row_begin, int64_t row_end) {
    const bool stream_b = s.rows <= kStreamRows;
    Prefetch next(s.b_next, (row_end - row_begin + 31) / 32 * ((s.depth + 31) / 32));
    if (s.last) {
      Finish finish(s, j, NT * 16, row_end);
      for (int64_t row = row_begin; row < row_end; row += 32) {
        group<MT, NT, false>(tiles, s, j, row, &next, &finish, finish.next(), 128);
        finish.stored(row);
      }
      finish.done();
      return;
    }
    for (int64_t row = row_begin; row < row_end; row += 32) {
      char* c = reinterpret_cast<char*>(s.c + row * s.c_stride + j * 16);
      if (stream_b)
        group<MT, NT, true>(tiles, s, j, row, nullptr, nullptr, c, s.c_stride * 4);
      else
        group<MT, NT, false>(tiles, s, j, row, &next, nullptr, c, s.c_stride * 4);
    }
  }

  // C of 32 rows into L1 before its turn comes, a few lines in each step
  static void prefetch_c(const char* c, int64_t stride, int64_t step) {
    if (step >= 16) return;
    for (const char* row = c + 2 * step * stride; row <= c + (2 * step + 1) * stride; row += stride) {
      asm volatile("prefetchw %0" : : "m"(*row));
      asm volatile("prefetchw %0" : : "m"(*(row + 64)));
    }
  }

  template <int MT, int NT, bool kStreamB>
  static void group(Tiles& tiles, const BlockArgs& s, int64_t j, int64_t row, Prefetch* next, Finish* finish, void* to,
                    int64_t to_stride) {
    Lines added = finish ? finish->added_to(row) : Lines{};
    const int64_t c_stride = s.c_stride * 4;
    const char* c0 = reinterpret_cast<const char*>(s.c + row * s.c_stride + j * 16);
    const char* c1 = c0 + 16 * c_stride;
    const bool fetches_c = !kStreamB && !(s.from_zero && s.last) && row + 32 < s.rows;
    if (s.from_zero) {
      tiles.template zero<0>();
      if constexpr (NT > 1) tiles.template zero<1>();
      if constexpr (MT > 1) tiles.template zero<2>();
      if constexpr (MT > 1 && NT > 1) tiles.template zero<3>();
    } else {
      tiles.template load<0>(c0, c_stride);
      if constexpr (NT > 1) tiles.template load<1>(c0 + 64, c_stride);
      if constexpr (MT > 1) tiles.template load<2>(c1, c_stride);
      if constexpr (MT > 1 && NT > 1) tiles.template load<3>(c1 + 64, c_stride);
    }
    const char* a0 = s.a + row / 16 * s.a_tile_row_stride;
    const char* a1 = a0 + s.a_tile_row_stride;
    const char* b0 = s.b + j * s.b_stride;
    const char* b1 = b0 + s.b_stride;
    for (int64_t d = 0; d < s.depth; d += 32) {
      if constexpr (kStreamB)
        for (int line = 0; line < 1024; line += 64) _mm_prefetch(b0 + kTuning.prefetch_b + line, _MM_HINT_T1);
      if constexpr (!kStreamB) {
        next->step();
        added.step();
        if (finish) finish->step();
        if (fetches_c) prefetch_c(c0 + 32 * c_stride, c_stride, d / 32);
      }
      tiles.template load<6>(b0, 64);
      if constexpr (kStreamB)
        tiles.template load<4>(a0, s.a_row_stride);
      else
        load_a<4>(tiles, a0, s.a_row_stride);
      tiles.template dot<0, 4, 6>();
      if constexpr (NT > 1) {
        tiles.template load<7>(b1, 64);
        tiles.template dot<1, 4, 7>();
      }
      if constexpr (MT > 1) {
        if constexpr (kStreamB)
          tiles.template load<5>(a1, s.a_row_stride);
        else
          load_a<5>(tiles, a1, s.a_row_stride);
        tiles.template dot<2, 5, 6>();
        if constexpr (NT > 1) tiles.template dot<3, 5, 7>();
      }
      a0 += s.a_tile_stride;
      a1 += s.a_tile_stride;
      b0 += 1024;
      b1 += 1024;
    }
    const char* low_a = s.low.a + row / 16 * s.low.a_tile_row_stride;
    const char* low_b = s.low.b + j * s.low.b_stride;
    for (int64_t d = 0; d < s.low.depth; d += 32, low_a += 1024, low_b += 1024) {
      tiles.template load<6>(low_b, 64);
      tiles.template load<4>(low_a, 64);
      tiles.template dot<0, 4, 6>();
      if constexpr (NT > 1) {
        tiles.template load<7>(low_b + s.low.b_stride, 64);
        tiles.template dot<1, 4, 7>();
      }
      if constexpr (MT > 1) {
        tiles.template load<5>(low_a + s.low.a_tile_row_stride, 64);
        tiles.template dot<2, 5, 6>();
        if constexpr (NT > 1) tiles.template dot<3, 5, 7>();
      }
    }
    char *to0 = static_cast<char*>(to), *to1 = to0 + 16 * to_stride;
    tiles.template store<0>(to0, to_stride);
    if constexpr (NT > 1) tiles.template store<1>(to0 + 64, to_stride);
    if constexpr (MT > 1) tiles.template store<2>(to1, to_stride);
    if constexpr (MT > 1 && NT > 1) tiles.template store<3>(to1 + 64, to_stride);
  }
};

// The AMX table: tiles for bf16, everything else from `base`.
constexpr GemmKernels with_amx_block(GemmKernels base, const char* name, BlockFn block) {
  base.name = name;
  base.block_bf16 = block;
  base.depth_granule = 32;
  base.a_tiled = true;
  base.finishes = true;
  base.panel_blocks = 2;
  base.few_rows = 32;
  base.block_rows = 512;
  base.chunk_bf16 = 512;
  base.super_blocks = 32;
  base.depth_outer_from = 2048;
  return base;
}

}  // namespace pmetal::cpu
