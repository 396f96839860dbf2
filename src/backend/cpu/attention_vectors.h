// P V for one or two rows in vector registers, with the bits of the tiles (attention_span.h): on a core whose tiles
// are slow, or for rows that would leave a tile nearly empty, this takes a third of the time, and values need no
// packing. What TDPBF16PS does for 32 keys is repeated: the products of the keys j and those of the keys j + 16 are two
// chains of fused multiply-adds from zero, whose sum is added to what was there; subnormals count as zero.
#pragma once

#include "backend/cpu/attention_span.h"

namespace pmetal::cpu {

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,avx2,f16c")

// subnormals count as zero while this lives
class FlushSubnormals {
 public:
  FlushSubnormals() { _mm_setcsr(before_ | 0x8040); }
  ~FlushSubnormals() { _mm_setcsr(before_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  unsigned before_ = _mm_getcsr();
};

inline constexpr int64_t kFactorsOfUnit = 2 * 16;  // floats: of keys j, of keys j + 16

// the p of a unit of softmax_lines() as floats
inline void widen_unit(const float* line, float* factors) {
  const __m512i pairs = _mm512_load_si512(line), high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  _mm512_store_si512(factors, _mm512_slli_epi32(pairs, 16));
  _mm512_store_si512(factors + 16, _mm512_and_si512(pairs, high));
}

// o [rows, d] += P V of a unit of 32 keys; of each 32 columns the even ones first. `ahead` is told for every 1 KiB.
// Not inlined, so that no arithmetic leaves the scope of FlushSubnormals.
template <int kRows, class Ahead>
__attribute__((noinline)) void add_unit_of_values(const float* factors, int64_t factors_row, const char* v,
                                                  int64_t stride, int64_t d, float* o, int64_t o_row, Ahead& ahead) {
  using F = __m512;
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  for (int64_t i = 0; i < d; i += 32) {
    F sum[kRows][2][2];  // [row][keys j, j + 16][even columns, odd]
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int n = 0; n < 4; ++n) sum[r][n / 2][n % 2] = _mm512_setzero_ps();
    for (int64_t j = 0; j < 16; ++j) {
      if (j % 8 == 0) ahead.step();
      F column[2][2];
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const __m512i row = _mm512_loadu_si512(v + (j + 16 * half) * stride + i * 2);
        column[half][0] = _mm512_castsi512_ps(_mm512_slli_epi32(row, 16));
        column[half][1] = _mm512_castsi512_ps(_mm512_and_si512(row, high));
      }
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          const F factor = _mm512_set1_ps(factors[r * factors_row + half * 16 + j]);
          sum[r][half][0] = Avx512::fma(factor, column[half][0], sum[r][half][0]);
          sum[r][half][1] = Avx512::fma(factor, column[half][1], sum[r][half][1]);
        }
    }
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
      for (int c = 0; c < 2; ++c) {
        float* at = o + r * o_row + i + c * 16;
        _mm512_store_ps(at, _mm512_load_ps(at) + (sum[r][0][c] + sum[r][1][c]));
      }
  }
}

// o [d] from even and odd columns to the order of the tiles
inline void to_tile_order(float* o, int64_t d) {
  for (int64_t i = 0; i < d; i += 32) {
    const __m512 even = _mm512_load_ps(o + i), odd = _mm512_load_ps(o + i + 16);
    _mm512_store_ps(o + i, _mm512_unpacklo_ps(even, odd));
    _mm512_store_ps(o + i + 16, _mm512_unpackhi_ps(even, odd));
  }
}

#pragma GCC pop_options

}  // namespace pmetal::cpu
