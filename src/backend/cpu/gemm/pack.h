// Packing of the two operands of C [rows, cols] = A [rows, depth] · B [depth, cols] into what the inner kernels read.
// Composed of the primitives in GemmKernels; edges go through a zero-filled block. Internal to gemm/.
#pragma once

#include <cstdint>

#include "backend/cpu/gemm/kernels.h"
#include "base/dtype.h"

namespace pmetal::cpu {

// how B [depth, cols] lies in memory
enum class BSource : uint8_t {
  kPacked,            // packed weight [cols, depth]: read as it is
  kRows,              // row-major [cols, depth]
  kColumns,           // row-major [depth, cols]
  kPackedTransposed,  // packed weight [depth, cols]
};

struct BOperand {
  BSource source = BSource::kPacked;
  DType dtype = DType::kBF16;  // kBF16 or kF32
  const char* data = nullptr;
  int64_t stride = 0;  // bytes from row to row of a row-major matrix
  int64_t depth = 0, cols = 0;
};

// bytes of `depth` of one block of 16 columns
int64_t b_block_bytes(DType dtype, int64_t depth);
// Blocks [block, block + n_blocks) and depths [begin, begin + length) to `to`, block after block b_block_bytes(length)
// apart. begin is a multiple of 32; block is even.
void pack_b(const GemmKernels& kernels, const BOperand& b, int64_t block, int64_t n_blocks, int64_t begin,
            int64_t length, char* to);

struct AOperand {
  DType dtype = DType::kBF16;  // kBF16 or kF32
  const char* data = nullptr;
  int64_t stride = 0;          // bytes from row to row as it lies in memory
  bool is_transposed = false;  // it lies as [depth, rows]
};

// Where packed A goes: rows one after the other, or 16 × 32 blocks of bf16 (`tiled`).
struct APacked {
  DType dtype = DType::kBF16;  // the operand's, or kF32 to widen bf16
  bool tiled = false;
  int64_t depth_padded = 0;                                                   // a multiple of 32
  int64_t group_bytes() const { return 16 * depth_padded * size_of(dtype); }  // of 16 rows
  int64_t row_stride() const { return tiled ? 64 : depth_padded * size_of(dtype); }
};

// Rows [row, row + n_rows) (n_rows <= 16) and depths [begin, begin + length) to one group of 16 rows at `to`; depths up
// to the next multiple of 32 are zero.
void pack_a(const GemmKernels& kernels, const AOperand& a, const APacked& packed, int64_t row, int64_t n_rows,
            int64_t begin, int64_t length, char* to);

}  // namespace pmetal::cpu
