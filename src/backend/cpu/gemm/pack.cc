#include "backend/cpu/gemm/pack.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/gemm/gemm.h"
#include "base/error.h"

namespace pmetal::cpu {
namespace {

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// A rectangle of `rows` × `row_bytes`, or, where it is smaller than the primitive reads, its copy in a zeroed block.
struct Edge {
  alignas(64) char block[2048];
  const char* from;
  int64_t stride;
  Edge(const char* data, int64_t data_stride, int64_t rows, int64_t row_bytes, int64_t full_rows, int64_t full_bytes) {
    if (rows >= full_rows && row_bytes >= full_bytes) {
      from = data;
      stride = data_stride;
      return;
    }
    std::memset(block, 0, static_cast<size_t>(full_rows * full_bytes));
    for (int64_t r = 0; r < std::min(rows, full_rows); ++r)
      std::memcpy(block + r * full_bytes, data + r * data_stride, static_cast<size_t>(std::min(row_bytes, full_bytes)));
    from = block;
    stride = full_bytes;
  }
};

void pack_rows(const GemmKernels& kernels, const BOperand& b, int64_t block, int64_t begin, int64_t length, char* to) {
  const int64_t size = size_of(b.dtype), step = 64 / size, rows = std::min<int64_t>(16, b.cols - block * 16);
  for (int64_t d = 0; d < length; d += step, to += 1024) {
    const Edge edge(b.data + block * 16 * b.stride + (begin + d) * size, b.stride, rows, (length - d) * size, 16, 64);
    kernels.transpose16(edge.from, edge.stride, to, 64);
  }
}

// Rows of the matrix may lie in few sets of L1, so all blocks take their columns of a row while it is there.
void pack_columns(const GemmKernels& kernels, const BOperand& b, int64_t block, int64_t n_blocks, int64_t begin,
                  int64_t length, char* to) {
  const int64_t size = size_of(b.dtype), bytes = b_block_bytes(b.dtype, length);
  const char* from = b.data + begin * b.stride + block * 16 * size;
  const auto columns = [&](int64_t j) { return std::min<int64_t>(16, b.cols - (block + j) * 16); };
  if (b.dtype == DType::kF32) {
    for (int64_t j = 0; j < n_blocks; ++j)
      for (int64_t d = 0; d < length; ++d) {
        char* line = to + j * bytes + d * 64;
        if (columns(j) < 16) std::memset(line, 0, 64);
        std::memcpy(line, from + d * b.stride + j * 64, static_cast<size_t>(columns(j) * 4));
      }
    return;
  }
  const bool has_next = (block + n_blocks) * 16 < b.cols;  // the next panel's columns into L2
  for (int64_t d = 0; d < length; d += 32, to += 1024, from += 32 * b.stride) {
    for (int64_t j = 0; j < n_blocks; ++j) {
      const Edge edge(from + j * 32, b.stride, length - d, columns(j) * 2, 32, 32);
      kernels.interleave(edge.from, edge.stride, to + j * bytes);
    }
    for (int64_t r = 0; has_next && r < std::min<int64_t>(32, length - d); ++r)
      __builtin_prefetch(from + r * b.stride + n_blocks * 32, 0, 2);
  }
}

// blocks `block` and `block + 1` (the latter to `high`)
void pack_transposed_bf16(const GemmKernels& kernels, const BOperand& b, int64_t block, int64_t begin, int64_t length,
                          char* low, char* high) {
  const int64_t tiles = (b.cols + 31) / 32, groups = (b.depth + 15) / 16;
  for (int64_t d = 0; d < length; d += 16, low += 512, high += 512) {
    const int64_t group = (begin + d) / 16;
    if (group < groups) kernels.retile(b.data + (group * tiles + block / 2) * 1024, low, high);
  }
  if (round_up(length, 16) % 32 != 0) {
    std::memset(low, 0, 512);
    std::memset(high, 0, 512);
  }
}

void pack_transposed_f32(const GemmKernels& kernels, const BOperand& b, int64_t block, int64_t begin, int64_t length,
                         char* to) {
  for (int64_t d = 0; d < length; d += 16, to += 1024) {
    const int64_t group = (begin + d) / 16;
    const Edge edge(b.data + (group * b.cols + block * 16) * 64, 64, b.cols - block * 16, 64, 16, 64);
    kernels.transpose16(edge.from, edge.stride, to, 64);
  }
}

}  // namespace

int64_t b_block_bytes(DType dtype, int64_t depth) {
  return dtype == DType::kBF16 ? round_up(depth, 32) * 32 : round_up(depth, 16) * 64;
}

void pack_b(const GemmKernels& kernels, const BOperand& b, int64_t block, int64_t n_blocks, int64_t begin,
            int64_t length, char* to) {
  const int64_t bytes = b_block_bytes(b.dtype, length);
  if (b.source == BSource::kPackedTransposed && b.dtype == DType::kBF16) {
    for (int64_t j = 0; j < n_blocks; j += 2)  // `to` has room for an even number of blocks
      pack_transposed_bf16(kernels, b, block + j, begin, length, to + j * bytes, to + (j + 1) * bytes);
    return;
  }
  if (b.source == BSource::kColumns) return pack_columns(kernels, b, block, n_blocks, begin, length, to);
  for (int64_t j = 0; j < n_blocks; ++j, to += bytes) {
    if (b.source == BSource::kRows)
      pack_rows(kernels, b, block + j, begin, length, to);
    else
      pack_transposed_f32(kernels, b, block + j, begin, length, to);
  }
}

void pack_a(const GemmKernels& kernels, const AOperand& a, const APacked& packed, int64_t row, int64_t n_rows,
            int64_t begin, int64_t length, char* to) {
  const int64_t to_size = size_of(packed.dtype), from_size = size_of(a.dtype), row_stride = packed.row_stride();
  const bool widen = packed.dtype != a.dtype;
  const auto place = [&](int64_t d) { return to + (packed.tiled ? d / 32 * 1024 : d * to_size); };
  if (!a.is_transposed) {
    if (packed.tiled && !widen && length % 32 == 0) {
      for (int64_t r = 0; r < n_rows; ++r) {
        const char* from = a.data + (row + r) * a.stride + begin * from_size;
        char* out = to + r * 64;
        for (int64_t d = 0; d < length; d += 32, from += 64, out += 1024) std::memcpy(out, from, 64);
      }
      return;
    }
    for (int64_t r = 0; r < n_rows; ++r) {
      const char* from = a.data + (row + r) * a.stride + begin * from_size;
      const int64_t step = packed.tiled ? 32 : round_up(length, 32);
      for (int64_t d = 0; d < length; d += step) {
        char* out = place(d) + r * row_stride;
        const int64_t n = std::min(step, length - d);
        if (widen)
          kernels.widen(reinterpret_cast<const uint16_t*>(from) + d, reinterpret_cast<float*>(out), n);
        else
          std::memcpy(out, from + d * from_size, static_cast<size_t>(n * from_size));
        if (n < step) std::memset(out + n * to_size, 0, static_cast<size_t>((step - n) * to_size));
      }
    }
    return;
  }
  const char* from = a.data + begin * a.stride + row * from_size;
  if (!widen && a.dtype == DType::kBF16) {
    alignas(64) char pairs[1024];
    for (int64_t d = 0; d < length; d += 32) {
      const Edge edge(from + d * a.stride, a.stride, length - d, n_rows * 2, 32, 32);
      kernels.interleave(edge.from, edge.stride, pairs);
      kernels.transpose16(pairs, 64, place(d), row_stride);
    }
    return;
  }
  alignas(64) float wide[16 * 16];
  for (int64_t d = 0; d < length; d += 16) {
    const Edge edge(from + d * a.stride, a.stride, length - d, n_rows * from_size, 16, 16 * from_size);
    if (widen) {
      for (int64_t i = 0; i < 16; ++i)
        kernels.widen(reinterpret_cast<const uint16_t*>(edge.from + i * edge.stride), wide + i * 16, 16);
      kernels.transpose16(wide, 64, place(d), row_stride);
    } else {
      kernels.transpose16(edge.from, edge.stride, place(d), row_stride);
    }
  }
}

// ---- packed weights -------------------------------------------------------------------------------------------------

int64_t packed_weight_bytes(DType dtype, int64_t n, int64_t k) {
  PMETAL_ASSERT(dtype == DType::kBF16 || dtype == DType::kF32, "{}", name_of(dtype));
  return dtype == DType::kBF16 ? round_up(n, 16) * round_up(k, 32) * 2 : round_up(n, 16) * k * 4;
}

void pack_weight_rows(DType dtype, void* packed, int64_t n, int64_t k, int64_t row_begin, int64_t row_end,
                      const void* rows, DType rows_dtype, int64_t rows_stride, ThreadPool& pool) {
  PMETAL_ASSERT(row_begin % 16 == 0 && (row_end % 16 == 0 || row_end == n) && row_end <= n, "[{}, {}) of {}", row_begin,
                row_end, n);
  const GemmKernels& kernels = kernels_for(isa());
  const int64_t block_bytes = packed_weight_bytes(dtype, 16, k), from_size = size_of(rows_dtype);
  const int64_t step = dtype == DType::kBF16 ? 32 : 16;  // depth of 64 bytes
  pool.parallel_for((row_end - row_begin + 15) / 16, 4, [&](int64_t begin, int64_t end) {
    alignas(64) char lines[1024], out[1024];
    for (int64_t g = begin; g < end; ++g) {
      const int64_t first = g * 16, n_rows = std::min<int64_t>(16, row_end - row_begin - first);
      char* to = static_cast<char*>(packed) + (row_begin / 16 + g) * block_bytes;
      for (int64_t d = 0; d < k; d += step, to += 1024) {
        const int64_t width = std::min(step, k - d);
        if (n_rows < 16 || width < step) std::memset(lines, 0, sizeof lines);
        for (int64_t r = 0; r < n_rows; ++r)
          convert(static_cast<const char*>(rows) + ((first + r) * rows_stride + d) * from_size, rows_dtype,
                  lines + r * 64, dtype, width);
        if (dtype == DType::kBF16 || width == step) {
          kernels.transpose16(lines, 64, to, 64);
        } else {  // the panel ends with k
          kernels.transpose16(lines, 64, out, 64);
          std::memcpy(to, out, static_cast<size_t>(width * 64));
        }
      }
    }
  });
}

void unpack_weight_rows(DType dtype, const void* packed, int64_t n, int64_t k, int64_t row_begin, int64_t row_end,
                        void* rows, DType rows_dtype, int64_t rows_stride) {
  PMETAL_ASSERT(row_begin >= 0 && row_end <= n, "[{}, {}) of {}", row_begin, row_end, n);
  const int64_t block_bytes = packed_weight_bytes(dtype, 16, k), to_size = size_of(rows_dtype);
  for (int64_t row = row_begin; row < row_end; ++row) {
    const char* from = static_cast<const char*>(packed) + row / 16 * block_bytes;
    char* to = static_cast<char*>(rows) + (row - row_begin) * rows_stride * to_size;
    for (int64_t d = 0; d < k; d += 32) {
      const int64_t width = std::min<int64_t>(32, k - d);
      alignas(64) char line[128];
      if (dtype == DType::kBF16)
        for (int64_t p = 0; p < 16; ++p) std::memcpy(line + p * 4, from + d * 32 + p * 64 + row % 16 * 4, 4);
      else
        for (int64_t i = 0; i < width; ++i) std::memcpy(line + i * 4, from + (d + i) * 64 + row % 16 * 4, 4);
      convert(line, dtype, to + d * to_size, rows_dtype, width);
    }
  }
}

}  // namespace pmetal::cpu
