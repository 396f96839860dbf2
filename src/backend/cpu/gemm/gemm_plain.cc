// The portable inner kernels: what every faster level is tested against. Product and sum are rounded separately
// (the baseline instruction set has no fma), one chain per output in increasing k.
#include <algorithm>
#include <bit>
#include <cstring>

#include "backend/cpu/gemm/kernels.h"

namespace pmetal::cpu {
namespace {

float widen_low(uint32_t pair) { return std::bit_cast<float>(pair << 16); }
float widen_high(uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); }

template <bool kBf16B>
void block(const BlockArgs& s) {
  for (int64_t j = 0; j < s.n_blocks; ++j) {
    const char* b = s.b + j * s.b_stride;
    for (int64_t i = 0; i < s.rows; ++i) {
      const float* a = reinterpret_cast<const float*>(s.a + i * s.a_row_stride);
      float* c = s.c + i * s.c_stride + j * 16;
      float acc[16] = {};
      if (!s.from_zero) std::memcpy(acc, c, sizeof acc);
      if constexpr (kBf16B) {
        const uint32_t* line = reinterpret_cast<const uint32_t*>(b);
        for (int64_t d = 0; d < s.depth; d += 2, line += 16) {
          for (int n = 0; n < 16; ++n) acc[n] += a[d] * widen_low(line[n]);
          if (d + 1 < s.depth)
            for (int n = 0; n < 16; ++n) acc[n] += a[d + 1] * widen_high(line[n]);
        }
      } else {
        const float* line = reinterpret_cast<const float*>(b);
        for (int64_t d = 0; d < s.depth; ++d, line += 16)
          for (int n = 0; n < 16; ++n) acc[n] += a[d] * line[n];
      }
      std::memcpy(c, acc, sizeof acc);
    }
  }
}

void transpose16(const void* from, int64_t from_stride, void* to, int64_t to_stride) {
  for (int r = 0; r < 16; ++r) {
    const uint32_t* line = reinterpret_cast<const uint32_t*>(static_cast<const char*>(from) + r * from_stride);
    for (int c = 0; c < 16; ++c) std::memcpy(static_cast<char*>(to) + c * to_stride + r * 4, line + c, 4);
  }
}

void interleave(const void* from, int64_t from_stride, void* to) {
  uint16_t* out = static_cast<uint16_t*>(to);
  for (int r = 0; r < 32; ++r) {
    const uint16_t* line = reinterpret_cast<const uint16_t*>(static_cast<const char*>(from) + r * from_stride);
    for (int c = 0; c < 16; ++c) out[(r / 2) * 32 + c * 2 + r % 2] = line[c];
  }
}

void retile(const void* tile, void* low, void* high) {
  const uint16_t* w = static_cast<const uint16_t*>(tile);
  for (int n = 0; n < 16; ++n)
    for (int k = 0; k < 32; ++k) {
      uint16_t* out = static_cast<uint16_t*>(k < 16 ? low : high);
      out[(n / 2) * 32 + (k % 16) * 2 + n % 2] = w[(k / 2) * 32 + n * 2 + k % 2];
    }
}

void widen(const uint16_t* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = to_f32(BF16{from[i]});
}

void finish(const FinishArgs& s) {
  for (int64_t row = 0; row < s.rows; ++row)
    for (int64_t i = 0; i < s.n; ++i) {
      float v = s.c[row * s.c_stride + i];
      if (s.bias) v += s.bias[i];
      const int64_t r = row * s.residual_stride + i, y = row * s.y_stride + i;
      if (s.residual)
        v += s.residual_dtype == DType::kBF16 ? to_f32(static_cast<const BF16*>(s.residual)[r])
                                              : static_cast<const float*>(s.residual)[r];
      if (s.y_dtype == DType::kBF16)
        static_cast<BF16*>(s.y)[y] = to_bf16(v);
      else
        static_cast<float*>(s.y)[y] = v;
    }
}

}  // namespace

const GemmKernels& plain_kernels() {
  static const GemmKernels kernels{
      .name = "plain",
      .block_f32 = block<false>,
      .block_f32_bf16 = block<true>,
      .block_bf16 = nullptr,
      .depth_granule = 1,
      .a_tiled = false,
      .finishes = false,
      .panel_blocks = 2,
      .few_rows = 1,
      .block_rows = 256,
      .chunk_bf16 = 512,
      .chunk_f32 = 256,
      .super_blocks = 16,
      .depth_outer_from = 0,
      .transpose16 = transpose16,
      .interleave = interleave,
      .retile = retile,
      .widen = widen,
      .finish = finish,
  };
  return kernels;
}

void product_f64(int64_t rows, int64_t cols, int64_t depth, StridedF64 a, StridedF64 b, double* c, int64_t c_stride,
                 bool accumulate) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) {
      double acc = accumulate ? c[i * c_stride + j] : 0;
      for (int64_t d = 0; d < depth; ++d) acc += a.data[i * a.row + d * a.column] * b.data[d * b.row + j * b.column];
      c[i * c_stride + j] = acc;
    }
}

}  // namespace pmetal::cpu
