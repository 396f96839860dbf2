// Eight tile registers in memory with the documented semantics of TDPBF16PS (Intel SDM vol. 2): within one instruction
// the even and the odd products are summed apart, each as a chain of fused multiply-adds from zero, then added, then
// added to the destination; subnormals count as zero on the way in and out. Tests only.
#pragma once

#include <bit>
#include <cmath>
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
  void dot() {
    check(C), check(A), check(B);
    PMETAL_ASSERT(rows_[C] == rows_[A] && rows_[B] == 16);
    for (int m = 0; m < rows_[C]; ++m)
      for (int n = 0; n < 16; ++n) {
        float even = 0, odd = 0;
        for (int p = 0; p < 16; ++p) {
          const uint32_t a = tiles_[A][m][p], b = tiles_[B][p][n];
          even = flush(std::fma(low(a), low(b), even));
          odd = flush(std::fma(high(a), high(b), odd));
        }
        const float sum = flush(even + odd);
        const float old = flush(std::bit_cast<float>(tiles_[C][m][n]));
        tiles_[C][m][n] = std::bit_cast<uint32_t>(flush(old + sum));
      }
  }

 private:
  static float flush(float v) { return std::fpclassify(v) == FP_SUBNORMAL ? std::copysign(0.f, v) : v; }
  static float low(uint32_t pair) { return flush(std::bit_cast<float>(pair << 16)); }
  static float high(uint32_t pair) { return flush(std::bit_cast<float>(pair & 0xffff0000u)); }
  void check(int tile) const { PMETAL_ASSERT(rows_[tile] >= 1 && rows_[tile] <= 16, "tile {}", tile); }

  int rows_[8] = {};
  uint32_t tiles_[8][16][16];
};

inline GemmKernels amx_emulated_kernels(const GemmKernels& base) {
  return with_amx_block(base, "amx_emulated", AmxBlock<EmulatedTiles, AmxTuning{}>::run);
}

}  // namespace pmetal::cpu
