// AVX2 inner kernels: 6 rows × 1 block of 16 outputs (two registers), or up to 3 rows × 2 blocks. B of bf16 is widened
// in registers by shift and mask: even k, then odd k. acc = fma(a, b, acc).
#include <immintrin.h>

#include <utility>

#include "backend/cpu/gemm/kernels.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

constexpr int64_t kPrefetchAhead = 4096;  // bytes, when B streams from memory

enum class Lanes { kF32, kEven, kOdd };  // a line of f32; the even or the odd k of a line of bf16 pairs

template <Lanes kLanes>
inline __attribute__((always_inline)) __m256 load_line(const char* b) {
  if constexpr (kLanes == Lanes::kF32) return _mm256_loadu_ps(reinterpret_cast<const float*>(b));
  const __m256i pair = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
  return _mm256_castsi256_ps(kLanes == Lanes::kEven
                                 ? _mm256_slli_epi32(pair, 16)
                                 : _mm256_and_si256(pair, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}

template <Lanes kLanes, int MR, int NV>
inline __attribute__((always_inline)) void step(__m256 (&acc)[MR][2 * NV], const char* a, int64_t a_stride,
                                                const char* b, int64_t b_stride) {
  __m256 line[2 * NV];
#pragma GCC unroll 4
  for (int j = 0; j < 2 * NV; ++j) line[j] = load_line<kLanes>(b + (j / 2) * b_stride + (j % 2) * 32);
#pragma GCC unroll 6
  for (int i = 0; i < MR; ++i) {
    const __m256 x = _mm256_broadcast_ss(reinterpret_cast<const float*>(a + i * a_stride));
#pragma GCC unroll 4
    for (int j = 0; j < 2 * NV; ++j) {
      acc[i][j] = _mm256_fmadd_ps(x, line[j], acc[i][j]);
      asm volatile("" : "+x"(acc[i][j]));  // keeps the order: GCC would hoist broadcasts and spill accumulators
    }
  }
}

template <bool kBf16B, int MR, int NV, bool kStream>
void micro(const BlockArgs& s, const char* a, const char* b, float* c) {
  __m256 acc[MR][2 * NV];
#pragma GCC unroll 6
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < 2 * NV; ++j)
      acc[i][j] = s.from_zero ? _mm256_setzero_ps() : _mm256_loadu_ps(c + i * s.c_stride + j * 8);
  const int64_t a_stride = s.a_row_stride, b_stride = s.b_stride;
  for (int64_t steps = kBf16B ? s.depth / 2 : s.depth; steps > 0; --steps) {
    if constexpr (kStream) {
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) _mm_prefetch(b + j * b_stride + kPrefetchAhead, _MM_HINT_T0);
    }
    if constexpr (kBf16B) {
      step<Lanes::kEven, MR, NV>(acc, a, a_stride, b, b_stride);
      step<Lanes::kOdd, MR, NV>(acc, a + 4, a_stride, b, b_stride);
      a += 8;
    } else {
      step<Lanes::kF32, MR, NV>(acc, a, a_stride, b, b_stride);
      a += 4;
    }
    b += 64;
  }
  if (kBf16B && s.depth % 2 != 0) step<Lanes::kEven, MR, NV>(acc, a, a_stride, b, b_stride);
#pragma GCC unroll 6
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < 2 * NV; ++j) _mm256_storeu_ps(c + i * s.c_stride + j * 8, acc[i][j]);
}

using MicroFn = void (*)(const BlockArgs&, const char*, const char*, float*);

template <bool kBf16B, int NV, bool kStream, int... I>
MicroFn pick(int64_t rows, std::integer_sequence<int, I...>) {
  static constexpr MicroFn table[] = {micro<kBf16B, I + 1, NV, kStream>...};
  return table[rows - 1];
}

// rows in passes of at most MR, as even as possible; the first one brings B from memory
template <bool kBf16B, int NV, int MR>
void panel(const BlockArgs& s, const char* b, float* c) {
  for (int64_t row = 0, left = (s.rows + MR - 1) / MR; row < s.rows; --left) {
    const int64_t rows = (s.rows - row + left - 1) / left;
    const MicroFn fn = row == 0 ? pick<kBf16B, NV, true>(rows, std::make_integer_sequence<int, MR>{})
                                : pick<kBf16B, NV, false>(rows, std::make_integer_sequence<int, MR>{});
    fn(s, s.a + row * s.a_row_stride, b, c + row * s.c_stride);
    row += rows;
  }
}

template <bool kBf16B>
void block(const BlockArgs& s) {
  for (int64_t j = 0; j < s.n_blocks;) {
    const char* b = s.b + j * s.b_stride;
    float* c = s.c + j * 16;
    if (s.rows <= 3 && s.n_blocks - j >= 2) {
      panel<kBf16B, 2, 3>(s, b, c);
      j += 2;
    } else {
      panel<kBf16B, 1, 6>(s, b, c);
      j += 1;
    }
  }
}

// 8 × 8 of 4 bytes
inline void transpose8(const char* in, int64_t from_stride, char* out, int64_t to_stride) {
  __m256 r[8], t[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(in + i * from_stride));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    _mm256_storeu_ps(reinterpret_cast<float*>(out + c * to_stride), _mm256_permute2f128_ps(r[c], r[4 + c], 0x20));
    _mm256_storeu_ps(reinterpret_cast<float*>(out + (4 + c) * to_stride), _mm256_permute2f128_ps(r[c], r[4 + c], 0x31));
  }
}

void transpose16(const void* from, int64_t from_stride, void* to, int64_t to_stride) {
  const char* in = static_cast<const char*>(from);
  char* out = static_cast<char*>(to);
  for (int r = 0; r < 2; ++r)
    for (int c = 0; c < 2; ++c)
      transpose8(in + r * 8 * from_stride + c * 32, from_stride, out + c * 8 * to_stride + r * 32, to_stride);
}

void interleave(const void* from, int64_t from_stride, void* to) {
  const char* in = static_cast<const char*>(from);
  char* out = static_cast<char*>(to);
  for (int p = 0; p < 16; ++p) {
    for (int h = 0; h < 2; ++h) {
      const __m256i even = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + h * 16)));
      const __m256i odd =
          _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + from_stride + h * 16)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + p * 64 + h * 32),
                          _mm256_or_si256(even, _mm256_slli_epi32(odd, 16)));
    }
    in += 2 * from_stride;
  }
}

// unpack the tile to rows of n (a transposition of k pairs), then interleave the rows
void retile(const void* tile, void* low, void* high) {
  alignas(64) char rows[1024];  // [16 n][32 k] bf16
  transpose16(tile, 64, rows, 64);
  for (int half = 0; half < 2; ++half) {
    char* out = static_cast<char*>(half == 0 ? low : high);
    for (int p = 0; p < 8; ++p)
      for (int h = 0; h < 2; ++h) {
        const char* in = rows + p * 128 + half * 32 + h * 16;
        const __m256i even = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
        const __m256i odd = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 64)));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + p * 64 + h * 32),
                            _mm256_or_si256(even, _mm256_slli_epi32(odd, 16)));
      }
  }
}

inline __m256 widen8(const uint16_t* from) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

// round to nearest even; NaN stays a quiet NaN
inline __m128i narrow8(__m256 v) {
  const __m256i u = _mm256_castps_si256(v), high = _mm256_srli_epi32(u, 16);
  const __m256i lsb = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, lsb), _mm256_set1_epi32(0x7fff)), 16);
  const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i r = _mm256_blendv_epi8(rounded, quiet, is_nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}

void widen(const uint16_t* from, float* to, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(to + i, widen8(from + i));
  for (; i < n; ++i) to[i] = to_f32(BF16{from[i]});
}

void finish(const FinishArgs& s) {
  const bool bf16_residual = s.residual_dtype == DType::kBF16, bf16_y = s.y_dtype == DType::kBF16;
  for (int64_t row = 0; row < s.rows; ++row) {
    const float* c = s.c + row * s.c_stride;
    const auto* residual16 = static_cast<const uint16_t*>(s.residual) + row * s.residual_stride;
    const auto* residual32 = static_cast<const float*>(s.residual) + row * s.residual_stride;
    auto* y16 = static_cast<uint16_t*>(s.y) + row * s.y_stride;
    auto* y32 = static_cast<float*>(s.y) + row * s.y_stride;
    int64_t i = 0;
    for (; i + 8 <= s.n; i += 8) {
      __m256 v = _mm256_loadu_ps(c + i);
      if (s.bias) v = _mm256_add_ps(v, _mm256_loadu_ps(s.bias + i));
      if (s.residual) v = _mm256_add_ps(v, bf16_residual ? widen8(residual16 + i) : _mm256_loadu_ps(residual32 + i));
      if (bf16_y)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(y16 + i), narrow8(v));
      else
        _mm256_storeu_ps(y32 + i, v);
    }
    for (; i < s.n; ++i) {
      float v = c[i];
      if (s.bias) v += s.bias[i];
      if (s.residual) v += bf16_residual ? to_f32(BF16{residual16[i]}) : residual32[i];
      if (bf16_y)
        y16[i] = to_bf16(v).bits;
      else
        y32[i] = v;
    }
  }
}

constexpr GemmKernels kAvx2{
    .name = "avx2",
    .block_f32 = block<false>,
    .block_f32_bf16 = block<true>,
    .block_bf16 = nullptr,
    .depth_granule = 1,
    .a_tiled = false,
    .finishes = false,
    .panel_blocks = 2,
    .few_rows = 6,
    .block_rows = 192,
    .chunk_bf16 = 256,
    .chunk_f32 = 256,
    .super_blocks = 32,
    .depth_outer_from = 0,
    .transpose16 = transpose16,
    .interleave = interleave,
    .retile = retile,
    .widen = widen,
    .finish = finish,
};

}  // namespace
}  // namespace pmetal::cpu

#pragma GCC pop_options

namespace pmetal::cpu {
const GemmKernels& avx2_kernels() { return kAvx2; }
}  // namespace pmetal::cpu
