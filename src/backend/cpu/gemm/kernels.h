// What one instruction set brings to the products: inner kernels over packed B panels, and the primitives from which
// all packing is composed. Internal to gemm/; tests and bench/cpu_gemm use it to pick a level.
#pragma once

#include <cstdint>
#include <span>

#include "backend/cpu/isa.h"
#include "base/dtype.h"

namespace pmetal::cpu {

// `count` strips of memory of `bytes` each, `stride` apart
struct Strips {
  const char* data = nullptr;
  int64_t count = 0, bytes = 0, stride = 0;
};

// C [rows, 16 · n_blocks] (f32) = (from_zero ? 0 : C) + A [rows, depth] · B [depth, 16 · n_blocks].
// A: element (row, d) lies at a + row · a_row_stride + d · size, unless the kernels want A in tiles (`a_tiled`): then
// block
//    (row / 16, d / 32) lies at a + (row / 16) · a_tile_row_stride + (d / 32) · a_tile_stride with rows a_row_stride
//    apart. Readable up to depth rounded up to depth_granule.
// B: block b starts at b + b · b_stride; 64-byte lines of 16 outputs: one k (f32) or one k pair (bf16) after the other.
// Strides in bytes, c_stride in elements.
struct FinishArgs;
struct BlockArgs {
  int64_t rows = 0, n_blocks = 0, depth = 0;
  const char* a = nullptr;
  int64_t a_row_stride = 0, a_tile_row_stride = 0, a_tile_stride = 0;
  const char* b = nullptr;
  int64_t b_stride = 0;
  Strips b_next;  // what will be read next, to be prefetched into L2
  float* c = nullptr;
  int64_t c_stride = 0;
  bool from_zero = true;
  // A second, short product that goes to the same sums afterwards (`finishes` kernels alone): A in tiles of 1 KiB, B in
  // blocks; depth 0: none
  struct Low {
    int64_t depth = 0;  // a multiple of 32
    const char *a = nullptr, *b = nullptr;
    int64_t a_tile_row_stride = 0, b_stride = 0;
  } low;
  // Kernels that can (`finishes`) hand the sums to `finish` while they lie in L1 and leave C as it is. The arguments
  // are those of the whole block; c is set by the kernel.
  const FinishArgs* last = nullptr;
  void (*finish)(const FinishArgs&) = nullptr;
};
using BlockFn = void (*)(const BlockArgs&);

// y = round(c + bias + residual) for `rows` rows of n outputs; bias and residual may be null. Strides in elements.
struct FinishArgs {
  int64_t rows = 1, n = 0;
  const float* c = nullptr;
  int64_t c_stride = 0;
  const float* bias = nullptr;  // [n]
  const void* residual = nullptr;
  DType residual_dtype = DType::kF32;
  int64_t residual_stride = 0;
  void* y = nullptr;
  DType y_dtype = DType::kF32;
  int64_t y_stride = 0;
  const uint16_t* gate = nullptr;  // bf16; for functions that gate the sums with it
  int64_t gate_stride = 0;
  bool stream = false;  // y will not be read before much else is: store it past the caches where a kernel can
};

struct GemmKernels {
  const char* name;
  // inner kernels
  BlockFn block_f32;       // A f32, B f32
  BlockFn block_f32_bf16;  // A f32, B bf16
  BlockFn block_bf16;      // A bf16, B bf16; null: A is widened and block_f32_bf16 used (the same chain)
  int64_t depth_granule;   // of block_bf16: 2 or 32
  bool a_tiled;            // block_bf16 wants many rows of A as contiguous 16 × 32 blocks
  bool finishes;           // block_bf16 takes BlockArgs::last
  // blocking, in rows, blocks of 16 outputs, and depth
  int64_t panel_blocks;           // blocks of one inner panel (even)
  int64_t few_rows;               // at most so many rows go in one pass over B
  int64_t block_rows;             // rows of A that stay in L2
  int64_t chunk_bf16, chunk_f32;  // depth of a panel that stays in L1
  int64_t super_blocks;           // blocks of C kept in L2 while the depth is walked in chunks
  int64_t depth_outer_from;       // from this depth on super_blocks is used, below it one panel
  // packing primitives on 64-byte lines
  void (*transpose16)(const void* from, int64_t from_stride, void* to, int64_t to_stride);  // 16 × 16 of 4 bytes
  // 32 rows × 16 columns of bf16 -> 16 lines of row pairs: to[p][c][2] = from[2p][c], from[2p+1][c]
  void (*interleave)(const void* from, int64_t from_stride, void* to);
  // one bf16_tile block (16 n × 32 k) -> 8 lines of n pairs for k 0..15 (`low`) and for k 16..31 (`high`)
  void (*retile)(const void* tile, void* low, void* high);
  void (*widen)(const uint16_t* from, float* to, int64_t n);
  void (*finish)(const FinishArgs&);
};

const GemmKernels& plain_kernels();
const GemmKernels& avx2_kernels();
const GemmKernels& avx512_kernels();
const GemmKernels& avx512_bf16_kernels();
const GemmKernels& amx_kernels();
void (*avx512_finish_tiles())(const FinishArgs&);
const GemmKernels& kernels_for(Isa isa);
// other ways to feed the tiles, for bench/cpu_gemm
std::span<const GemmKernels> amx_variants();

// f64 (and reference) loops of gemm_plain.cc: c [rows, cols] = (accumulate ? c : 0) + Σ_d a(row, d) b(d, col)
struct StridedF64 {
  const double* data;
  int64_t row, column;  // strides in elements
};
void product_f64(int64_t rows, int64_t cols, int64_t depth, StridedF64 a, StridedF64 b, double* c, int64_t c_stride,
                 bool accumulate);

}  // namespace pmetal::cpu
