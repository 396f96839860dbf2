// Eight tile registers in memory with the documented semantics of TDPBF16PS (Intel SDM vol. 2): within one instruction
// the even and the odd products are summed apart, each as a chain of fused multiply-adds from zero, then added, then
// added to the destination; subnormals count as zero on the way in and out. Tests only.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "backend/cpu/gemm/amx_block.h"
#include "base/dtype.h"
#include "base/error.h"

namespace pmetal::cpu {

class EmulatedTiles {
 public:
  void configure(int upper, int lower) {
    const int rows[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
    std::memcpy(rows_, rows, sizeof rows);
    std::memset(tiles_, 0, sizeof tiles_);
  }
  void release() { std::memset(rows_, 0, sizeof rows_); }
  template <int T>
  void zero() {
    check(T);
    std::memset(tiles_[T], 0, sizeof tiles_[T]);
  }
  template <int T>
  void load(const char* from, int64_t stride) {
    check(T);
    std::memset(tiles_[T], 0, sizeof tiles_[T]);
    for (int r = 0; r < rows_[T]; ++r) std::memcpy(tiles_[T][r], from + r * stride, 64);
  }
  template <int T>
  void stream_load(const char* from, int64_t stride) {
    load<T>(from, stride);
  }
  template <int T>
  void store(char* to, int64_t stride) {
    check(T);
    for (int r = 0; r < rows_[T]; ++r) std::memcpy(to + r * stride, tiles_[T][r], 64);
  }
  template <int C, int A, int B>
  __attribute__((target("avx2,fma"))) void dot() {
    check(C), check(A), check(B);
    PMETAL_ASSERT(rows_[C] == rows_[A] && rows_[B] == 16);
    for (int m = 0; m < rows_[C]; ++m)
      for (int n = 0; n < 16; n += 8) {  // a column in each lane
        __m256 even = _mm256_setzero_ps(), odd = even;
        for (int p = 0; p < 16; ++p) {
          const __m256i a = _mm256_set1_epi32(static_cast<int>(tiles_[A][m][p])), b = eight(&tiles_[B][p][n]);
          even = flush(_mm256_fmadd_ps(low(a), low(b), even));
          odd = flush(_mm256_fmadd_ps(high(a), high(b), odd));
        }
        const __m256 sum = flush(_mm256_add_ps(even, odd)), old = flush(_mm256_castsi256_ps(eight(&tiles_[C][m][n])));
        const __m256 all = flush(_mm256_add_ps(old, sum));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(&tiles_[C][m][n]), _mm256_castps_si256(all));
      }
  }

 private:
  // subnormals (exponent 0) to zero of their sign
  __attribute__((target("avx2,fma"))) static __m256 flush(__m256 v) {
    const __m256i bits = _mm256_castps_si256(v), exponent = _mm256_set1_epi32(0x7f800000);
    const __m256i is_zero = _mm256_cmpeq_epi32(_mm256_and_si256(bits, exponent), _mm256_setzero_si256());
    return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_and_si256(is_zero, _mm256_set1_epi32(0x7fffffff)), bits));
  }
  __attribute__((target("avx2,fma"))) static __m256 low(__m256i pairs) {
    return flush(_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)));
  }
  __attribute__((target("avx2,fma"))) static __m256 high(__m256i pairs) {
    return flush(_mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u)))));
  }
  __attribute__((target("avx2,fma"))) static __m256i eight(const uint32_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  void check(int tile) const { PMETAL_ASSERT(rows_[tile] >= 1 && rows_[tile] <= 16, "tile {}", tile); }

  int rows_[8] = {};
  uint32_t tiles_[8][16][16];
};

inline GemmKernels amx_emulated_kernels(const GemmKernels& base) {
  return with_amx_block(base, "amx_emulated", AmxBlock<EmulatedTiles, AmxTuning{}>::run);
}

}  // namespace pmetal::cpu
