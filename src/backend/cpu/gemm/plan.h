// How a product C [rows, cols] = A [rows, depth] · B [depth, cols] is cut: the arguments of the driver (gemm.cc) in one
// form, and the plan made of them. Internal to gemm/.
#pragma once

#include <array>
#include <span>

#include "backend/cpu/gemm/gemm.h"
#include "backend/cpu/gemm/kernels.h"
#include "backend/cpu/gemm/pack.h"

namespace pmetal::cpu {

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
inline int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

inline constexpr int kMaxRanges = 64;  // of tasks; more workers share them
inline int ranges_of(int n_threads) { return std::min(n_threads, kMaxRanges); }

// The columns of C that one weight makes.
struct Part {
  int64_t cols = 0;
  BOperand b;
  Matrix c;
  const void* bias = nullptr;
  DType bias_dtype = DType::kF32;
  ConstMatrix residual;
  int64_t low_depth = 0;  // of the second product; 0: none
  AOperand low_a;
  BOperand low_b;
  int64_t blocks() const { return divide_up(cols, 16); }
};

// Parts share A, and their B have one type and lie in one way.
struct Product {
  const GemmKernels* kernels = nullptr;
  int64_t rows = 0, depth = 0;
  AOperand a;
  RowNorm norm;  // of A's rows, before all else
  bool accumulate = false;
  int n_parts = 1;
  std::array<Part, kMostParts> parts;
  bool is_gated = false;                        // part 0 gates part 1, and the result is part 0's c
  void (*finish)(const FinishArgs&) = nullptr;  // of the sums (when gated: of part 1's); null: the kernels' own

  const Part& first() const { return parts[0]; }
  std::span<const Part> used() const { return {parts.data(), static_cast<size_t>(n_parts)}; }
  int64_t cols() const {
    int64_t n = 0;
    for (const Part& part : used()) n += part.cols;
    return n;
  }
};

// Columns are counted in blocks of 16, over all parts: part after part, or, when gated, `panel` blocks of the one and
// of the other in turn.
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
  int64_t blocks = 0;
  std::array<int64_t, kMostParts> first_block = {};
  int64_t block_rows = 0, super_blocks = 0, chunk = 0;
  int64_t panel = 0;            // blocks that the inner kernel is given at most
  bool is_depth_outer = false;  // a super block's panels are walked chunk by chunk of the depth
  // all workers go through the panels of `stage_blocks` columns together, chunk after chunk of the depth; 0: they do
  // not
  int64_t stage_blocks = 0;
  std::array<APacked, kMostParts> low_a;  // of the second products, all rows
  // workspace: A, low_a, A's rows after the norm and what stages share; the others per worker
  int64_t a_bytes = 0, low_a_bytes = 0, norm_bytes = 0, stage_bytes = 0;
  int64_t b_bytes = 0, c_bytes = 0, bias_bytes = 0, gate_bytes = 0, low_b_bytes = 0;
  int64_t shared_bytes() const { return a_bytes + low_a_bytes + norm_bytes + stage_bytes; }
  int64_t worker_bytes() const { return b_bytes + c_bytes + bias_bytes + gate_bytes + low_b_bytes; }
};

Plan make_plan(const Product& p, int n_threads);

}  // namespace pmetal::cpu
