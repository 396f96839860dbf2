// Shared by the layouts whose lines hold the same 4 bytes (one f32, two bf16) of 16 rows.
#pragma once

#include <emmintrin.h>

#include <algorithm>
#include <cstring>

#include "quant/weight.h"

namespace pmetal::quant {

inline constexpr int64_t kTileRows = 16;
inline int64_t tile_groups(int64_t out) { return (out + kTileRows - 1) / kTileRows; }

// 16 rows of 64 bytes, `stride` bytes apart, to 16 lines: line i holds 4 bytes at 4·i of each row. Only `rows` rows and
// `row_bytes` bytes of each exist; the rest is zero.
inline void transpose_block(const std::byte* from, int64_t stride, int64_t rows, int64_t row_bytes, std::byte* to) {
  alignas(64) std::byte edge[16 * 64];
  if (rows < kTileRows || row_bytes < 64) {
    std::memset(edge, 0, sizeof edge);
    for (int64_t r = 0; r < rows; ++r) std::memcpy(edge + r * 64, from + r * stride, static_cast<size_t>(row_bytes));
    from = edge;
    stride = 64;
  }
  for (int64_t r = 0; r < 16; r += 4)
    for (int64_t c = 0; c < 16; c += 4) {
      const auto row = [&](int64_t i) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + (r + i) * stride + c * 4));
      };
      const auto put = [&](int64_t i, __m128i line) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + (c + i) * 64 + r * 4), line);
      };
      const __m128i a = row(0), b = row(1), d = row(2), e = row(3);
      const __m128i ab_low = _mm_unpacklo_epi32(a, b), ab_high = _mm_unpackhi_epi32(a, b);
      const __m128i de_low = _mm_unpacklo_epi32(d, e), de_high = _mm_unpackhi_epi32(d, e);
      put(0, _mm_unpacklo_epi64(ab_low, de_low));
      put(1, _mm_unpackhi_epi64(ab_low, de_low));
      put(2, _mm_unpacklo_epi64(ab_high, de_high));
      put(3, _mm_unpackhi_epi64(ab_high, de_high));
    }
}

}  // namespace pmetal::quant
