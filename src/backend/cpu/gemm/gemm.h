// Matrix products of the CPU backend: the three products of a linear layer with weight W [N out, K in].
//   linear_forward      Y  [M, N]  = X [M, K] · Wᵀ      (+ bias, + residual)
//   linear_input_grad   dX [M, K]  = dY [M, N] · W
//   linear_weight_grad  dW [N, K]  = dYᵀ · X            (f32, may accumulate)
// All are one core, C [rows, cols] = A [rows, depth] · B [depth, cols], with different ways to fetch A and B.
//
// Bits. Every output is one f32 chain over the depth in increasing order. Its arithmetic depends on the depth, the
// element types and the instruction set only: not on M or N, on the other rows, on how a call is cut, or on the number
// of threads.
//   f32 chain            acc = fma(a[k], b[k], acc); also for bf16 operands below vdpbf16ps, and for mixed types (bf16
//   is
//                        widened exactly). The plain level rounds product and sum separately.
//   bf16 · bf16          avx512_bf16: vdpbf16ps per pair of k. amx: TDPBF16PS per 32 k. Both flush subnormals.
// `accumulate` starts the chain from the old f32 value, so cutting the depth at multiples of 32 keeps the bits too.
//
// Weight layouts (zero padded; the same for every instruction set):
//   bf16_tile  [ceil(N/16)][ceil(K/32)][k pair 16][n 16][2] bf16: 1 KiB blocks. B tile of AMX; one 64-byte line is 16
//   outputs
//              of one k pair, which is an operand of vdpbf16ps.
//   f32_panel  [ceil(N/16)][K][16] f32
//   row-major  [N, K] with a row stride (weights that train); packed in panels on the fly into workspace.
// dX reads the same packed W: tiles are transposed in L1 and reused over a block of rows.
//
// Kernels never allocate: pass workspace of at least workspace_bytes(), aligned to 64.
// Speed: see bench/cpu_gemm and the table at the end of this file.
#pragma once

#include <array>
#include <cstdint>

#include "backend/cpu/isa.h"
#include "base/dtype.h"
#include "base/threads.h"

namespace pmetal::cpu {

struct FinishArgs;   // kernels.h
struct GemmKernels;  // one instruction set's inner kernels; kernels.h

enum class WeightLayout : uint8_t { kRowMajor, kPacked };  // kPacked: bf16_tile for bf16, f32_panel for f32

struct ConstMatrix {
  const void* data = nullptr;
  DType dtype = DType::kBF16;  // kBF16, kF32; kF64 (all operands; plain kernel; gradient checks)
  int64_t stride = 0;          // elements from row to row
};
struct Matrix {
  void* data = nullptr;
  DType dtype = DType::kBF16;
  int64_t stride = 0;
};
struct WeightMatrix {  // [N, K]
  const void* data = nullptr;
  DType dtype = DType::kBF16;
  WeightLayout layout = WeightLayout::kPacked;
  int64_t stride = 0;  // row-major only
};

// A second product of small inner size that goes to the same sums, after the first: x_low [m, rank] · w_lowᵀ, with
// w_low [n, rank] row-major; in LinearInputGrad dy_low [m, rank] · w_low, with w_low [rank, k]. bf16 throughout, and
// for kernels on tiles alone (GemmKernels::finishes).
struct LowRank {
  int64_t rank = 0;  // 0: none
  ConstMatrix x, w;
};

// y = (accumulate ? y : 0) + x · wᵀ (+ low), then + bias, then + residual, rounded once to y's type.
struct LinearForward {
  int64_t m = 0, n = 0, k = 0;
  ConstMatrix x;  // [m, k]
  WeightMatrix w;
  Matrix y;                    // [m, n], bf16 or f32; must not overlap x
  bool accumulate = false;     // f32 y only
  const void* bias = nullptr;  // [n]
  DType bias_dtype = DType::kF32;
  ConstMatrix residual;  // [m, n], bf16 or f32, or data == nullptr; may be y itself
  LowRank low;
  const GemmKernels* kernels = nullptr;  // nullptr: the best of cpu::isa()
};

// The norm of x's rows (rms_norm): from `n` elements at x to as many of x's type at y.
struct RowNorm {
  void (*row)(const void* x, const void* weight, float eps, int64_t n, void* y) = nullptr;
  const void* weight = nullptr;
  float eps = 0;
  explicit operator bool() const { return row != nullptr; }
};
inline constexpr int64_t kMostNormed = 16384;  // elements of such a row
inline constexpr int kMostParts = 3;

// Products of several weights with the same x (after its norm), which is packed once:
//   y_p = h · w_pᵀ (+ low) (+ bias), then + residual;  or, when gated, y_0 = finish(h · w_0ᵀ, h · w_1ᵀ)
// Weights have one type and one layout.
struct LinearGroup {
  struct Part {
    int64_t n = 0;
    WeightMatrix w;
    Matrix y;  // [m, n]; gated: the first part's alone
    const void* bias = nullptr;
    DType bias_dtype = DType::kF32;
    ConstMatrix residual;  // for `finish`
    LowRank low;
  };
  int64_t m = 0, k = 0;
  ConstMatrix x;  // [m, k]; with a norm k <= kMostNormed
  RowNorm norm;
  int n_parts = 0;
  std::array<Part, kMostParts> parts;
  bool is_gated = false;                        // two parts of one width, bf16
  void (*finish)(const FinishArgs&) = nullptr;  // makes y of the last part's sums; null: rounds them
  const GemmKernels* kernels = nullptr;
};

// dx = (accumulate ? dx : 0) + dy · w (+ low), then + residual
struct LinearInputGrad {
  int64_t m = 0, n = 0, k = 0;
  ConstMatrix dy;  // [m, n]
  WeightMatrix w;
  Matrix dx;                // [m, k], bf16 or f32
  bool accumulate = false;  // f32 dx only
  ConstMatrix residual;     // [m, k] or data == nullptr; may be dx itself
  LowRank low;
  const GemmKernels* kernels = nullptr;
};

// dw = (accumulate ? dw : 0) + dyᵀ · x
struct LinearWeightGrad {
  int64_t m = 0, n = 0, k = 0;
  ConstMatrix dy;  // [m, n]
  ConstMatrix x;   // [m, k]
  Matrix dw;       // [n, k], f32 (f64 when dy and x are f64)
  bool accumulate = false;
  const GemmKernels* kernels = nullptr;
};

int64_t workspace_bytes(const LinearForward& args, int n_threads);
int64_t workspace_bytes(const LinearGroup& args, int n_threads);
int64_t workspace_bytes(const LinearInputGrad& args, int n_threads);
int64_t workspace_bytes(const LinearWeightGrad& args, int n_threads);

// `pool` may be of any size; workspace must have been sized with pool.size().
void linear_forward(const LinearForward& args, void* workspace, ThreadPool& pool);
void linear_group(const LinearGroup& args, void* workspace, ThreadPool& pool);
void linear_input_grad(const LinearInputGrad& args, void* workspace, ThreadPool& pool);
void linear_weight_grad(const LinearWeightGrad& args, void* workspace, ThreadPool& pool);

// ---- packed weights -------------------------------------------------------------------------------------------------

constexpr int64_t kPackRows = 16;  // rows of one packed block

// bytes of a packed [n, k] weight of type kBF16 or kF32; the memory must be aligned to 64 bytes
int64_t packed_weight_bytes(DType dtype, int64_t n, int64_t k);

// Packs rows [row_begin, row_end) of an [n, k] weight; `rows` points at row row_begin (row-major bf16 or f32, rounded
// to `dtype`). row_begin is a multiple of 16, row_end too or equal to n: so a loader can stream. Padding is written as
// well.
void pack_weight_rows(DType dtype, void* packed, int64_t n, int64_t k, int64_t row_begin, int64_t row_end,
                      const void* rows, DType rows_dtype, int64_t rows_stride, ThreadPool& pool);

// Reads rows [row_begin, row_end) back to row-major bf16 or f32 (embedding lookup in a tied head, merging, saving).
void unpack_weight_rows(DType dtype, const void* packed, int64_t n, int64_t k, int64_t row_begin, int64_t row_end,
                        void* rows, DType rows_dtype, int64_t rows_stride);

}  // namespace pmetal::cpu

// ---- speed ----------------------------------------------------------------------------------------------------------
// One core of a Zen 4 (2.6 GHz base; AVX-512 with bf16, no AMX), processor time, bench/cpu_gemm --cpu-time --threads 1,
// 2026-11. From registers: bf16 234 GFLOP/s (vdpbf16ps), f32 117 (AVX-512 and AVX2 alike); memory reads at 27-31 GB/s.
// W is [4096, 1024] (Qwen3-0.6B qkv) and comes from memory. GFLOP/s, and for M = 1 GB/s; medians:
//
//                            M = 1     8     64    512          oneDNN 2.6 packed   M = 1     8     64    512
//   forward  bf16 avx512_bf16   24   152   200    214  (91 %)                          19   129    207    222
//            bf16 avx512        22   105   112    107  (91 %)
//            bf16 avx2          22    61   102    100  (85 %)
//            f32  avx512        27    86   101    109  (93 %)                          17    63    105    111
//   dX       bf16 avx512_bf16               165    193  (82 %)
//   dW       bf16 avx512_bf16               123    191  (81 %)
//   row-major W, bf16          11    69    171    191  (82 %)                          11    71    174    211
// AMX has been checked over emulated tiles only; its blocking follows measurements of a plain hand-written kernel.
