// AVX-512 inner kernels. The register tile is MR rows × NV blocks of 16 outputs (24 accumulators); each step loads NV
// 64-byte lines of B and broadcasts one element (f32) or one pair (bf16) of each row of A from memory.
//   f32        acc = fma(a, b, acc)
//   f32 · bf16 the two halves of a B line are widened by shift and mask: even k, then odd k
//   bf16       acc = vdpbf16ps(acc, a pair, b line)
#include <immintrin.h>

#include <utility>

#include "backend/cpu/gemm/kernels.h"

// GCC 12 takes the undefined pass-through operand of its own intrinsics for a mistake (PR 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,avx2")

namespace pmetal::cpu {
namespace {

constexpr int64_t kPrefetchAhead = 4096;  // bytes, when B streams from memory

struct StepF32 {
  static constexpr int kDepth = 1, kABytes = 4;
  template <int MR, int NV>
  static inline __attribute__((always_inline)) void run(__m512 (&acc)[MR][NV], const char* const (&a)[MR],
                                                        const char* b, int64_t b_stride) {
    __m512 line[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) line[j] = _mm512_loadu_ps(b + j * b_stride);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const __m512 x = _mm512_set1_ps(*reinterpret_cast<const float*>(a[i]));
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = _mm512_fmadd_ps(x, line[j], acc[i][j]);
    }
  }
  template <int MR, int NV>
  static inline __attribute__((always_inline)) void half(__m512 (&)[MR][NV], const char* const (&)[MR], const char*,
                                                         int64_t) {}
};

struct StepF32Bf16 {
  static constexpr int kDepth = 2, kABytes = 8;
  template <int MR, int NV, bool kOdd>
  static inline __attribute__((always_inline)) void one(__m512 (&acc)[MR][NV], const char* const (&a)[MR],
                                                        const char* b, int64_t b_stride) {
    __m512 line[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      const __m512i pair = _mm512_loadu_si512(b + j * b_stride);
      line[j] = _mm512_castsi512_ps(kOdd ? _mm512_and_si512(pair, _mm512_set1_epi32(static_cast<int>(0xffff0000u)))
                                         : _mm512_slli_epi32(pair, 16));
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const __m512 x = _mm512_set1_ps(*reinterpret_cast<const float*>(a[i] + (kOdd ? 4 : 0)));
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = _mm512_fmadd_ps(x, line[j], acc[i][j]);
    }
  }
  template <int MR, int NV>
  static inline __attribute__((always_inline)) void run(__m512 (&acc)[MR][NV], const char* const (&a)[MR],
                                                        const char* b, int64_t b_stride) {
    one<MR, NV, false>(acc, a, b, b_stride);
    one<MR, NV, true>(acc, a, b, b_stride);
  }
  template <int MR, int NV>
  static inline __attribute__((always_inline)) void half(__m512 (&acc)[MR][NV], const char* const (&a)[MR],
                                                         const char* b, int64_t b_stride) {
    one<MR, NV, false>(acc, a, b, b_stride);
  }
};

using UnalignedInt = int __attribute__((aligned(1), may_alias));  // a bf16 pair of a row that may begin anywhere

struct StepBf16 {
  static constexpr int kDepth = 2, kABytes = 4;
  template <int MR, int NV>
  static inline __attribute__((always_inline)) void run(__m512 (&acc)[MR][NV], const char* const (&a)[MR],
                                                        const char* b, int64_t b_stride) {
    __m512i line[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) line[j] = _mm512_loadu_si512(b + j * b_stride);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const __m512i x = _mm512_set1_epi32(*reinterpret_cast<const UnalignedInt*>(a[i]));
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j)
        acc[i][j] = _mm512_dpbf16_ps(acc[i][j], reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(line[j]));
    }
  }
  template <int MR, int NV>
  static inline __attribute__((always_inline)) void half(__m512 (&acc)[MR][NV], const char* const (&a)[MR],
                                                         const char* b, int64_t b_stride) {
    run<MR, NV>(acc, a, b, b_stride);  // A is padded with a zero
  }
};

template <class Step, int MR, int NV, bool kStream>
void micro(const BlockArgs& s, const char* a_rows, const char* b, float* c) {
  __m512 acc[MR][NV];
  const char* a[MR];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
    a[i] = a_rows + i * s.a_row_stride;
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j)
      acc[i][j] = s.from_zero ? _mm512_setzero_ps() : _mm512_loadu_ps(c + i * s.c_stride + j * 16);
  }
  const int64_t b_stride = s.b_stride;
  for (int64_t steps = s.depth / Step::kDepth; steps > 0; --steps) {
    if constexpr (kStream) {
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) _mm_prefetch(b + j * b_stride + kPrefetchAhead, _MM_HINT_T0);
    }
    Step::template run<MR, NV>(acc, a, b, b_stride);
    b += 64;
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) a[i] += Step::kABytes;
  }
  if (s.depth % Step::kDepth != 0) Step::template half<MR, NV>(acc, a, b, b_stride);
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) _mm512_storeu_ps(c + i * s.c_stride + j * 16, acc[i][j]);
}

using MicroFn = void (*)(const BlockArgs&, const char*, const char*, float*);

template <class Step, int NV, bool kStream, int... I>
MicroFn pick(int64_t rows, std::integer_sequence<int, I...>) {
  static constexpr MicroFn table[] = {micro<Step, I + 1, NV, kStream>...};
  return table[rows - 1];
}

// rows in passes of at most MR, as even as possible; the first one brings B from memory
template <class Step, int NV, int MR>
void panel(const BlockArgs& s, const char* b, float* c) {
  for (int64_t row = 0, left = (s.rows + MR - 1) / MR; row < s.rows; --left) {
    const int64_t rows = (s.rows - row + left - 1) / left;
    const MicroFn fn = row == 0 ? pick<Step, NV, true>(rows, std::make_integer_sequence<int, MR>{})
                                : pick<Step, NV, false>(rows, std::make_integer_sequence<int, MR>{});
    fn(s, s.a + row * s.a_row_stride, b, c + row * s.c_stride);
    row += rows;
  }
}

template <class Step>
void block(const BlockArgs& s) {
  for (int64_t j = 0; j < s.n_blocks;) {
    const int64_t left = s.n_blocks - j;
    const char* b = s.b + j * s.b_stride;
    float* c = s.c + j * 16;
    const bool in_one_pass = s.rows > 6 && s.rows <= 12;  // of one linear stream
    if (left >= 4 && !in_one_pass) {
      panel<Step, 4, 6>(s, b, c);
      j += 4;
    } else if (left >= 2 && !in_one_pass) {
      panel<Step, 2, 12>(s, b, c);
      j += 2;
    } else {
      panel<Step, 1, 12>(s, b, c);
      j += 1;
    }
  }
}

void transpose16(const void* from, int64_t from_stride, void* to, int64_t to_stride) {
  const char* in = static_cast<const char*>(from);
  char* out = static_cast<char*>(to);
  __m512i r[16], t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(in + i * from_stride);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  // r[4 q + c], lane l: column 4 l + c of rows 4 q .. 4 q + 3
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i lo01 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x44), hi01 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xee);
    const __m512i lo23 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x44);
    const __m512i hi23 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xee);
    _mm512_storeu_si512(out + c * to_stride, _mm512_shuffle_i32x4(lo01, lo23, 0x88));
    _mm512_storeu_si512(out + (4 + c) * to_stride, _mm512_shuffle_i32x4(lo01, lo23, 0xdd));
    _mm512_storeu_si512(out + (8 + c) * to_stride, _mm512_shuffle_i32x4(hi01, hi23, 0x88));
    _mm512_storeu_si512(out + (12 + c) * to_stride, _mm512_shuffle_i32x4(hi01, hi23, 0xdd));
  }
}

void interleave(const void* from, int64_t from_stride, void* to) {
  const char* in = static_cast<const char*>(from);
  char* out = static_cast<char*>(to);
  for (int p = 0; p < 16; ++p) {
    const __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in)));
    const __m512i odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + from_stride)));
    _mm512_storeu_si512(out + p * 64, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
    in += 2 * from_stride;
  }
}

// Each line of the tile holds 8 quads (n even, n odd) × (k even, k odd). Reordered within a quad it is two adjacent k
// of one n pair; what remains is a transposition of 8 × 8 quads, once for each half of k.
void retile(const void* tile, void* low, void* high) {
  const char* in = static_cast<const char*>(tile);
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  for (int half = 0; half < 2; ++half) {
    __m512i r[8], t[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) r[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(in + (half * 8 + i) * 64), order);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      t[2 * i] = _mm512_unpacklo_epi64(r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm512_unpackhi_epi64(r[2 * i], r[2 * i + 1]);
    }
    char* out = static_cast<char*>(half == 0 ? low : high);
    // t[2 q + c], lane l: quad 2 l + c of rows 2 q, 2 q + 1
#pragma GCC unroll 2
    for (int c = 0; c < 2; ++c) {
      const __m512i lo01 = _mm512_shuffle_i32x4(t[c], t[2 + c], 0x44),
                    hi01 = _mm512_shuffle_i32x4(t[c], t[2 + c], 0xee);
      const __m512i lo23 = _mm512_shuffle_i32x4(t[4 + c], t[6 + c], 0x44);
      const __m512i hi23 = _mm512_shuffle_i32x4(t[4 + c], t[6 + c], 0xee);
      _mm512_storeu_si512(out + c * 64, _mm512_shuffle_i32x4(lo01, lo23, 0x88));
      _mm512_storeu_si512(out + (2 + c) * 64, _mm512_shuffle_i32x4(lo01, lo23, 0xdd));
      _mm512_storeu_si512(out + (4 + c) * 64, _mm512_shuffle_i32x4(hi01, hi23, 0x88));
      _mm512_storeu_si512(out + (6 + c) * 64, _mm512_shuffle_i32x4(hi01, hi23, 0xdd));
    }
  }
}

inline __m512 widen16(__m256i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)); }

// round to nearest even by integers: vcvtneps2bf16 would flush subnormals
inline __m256i narrow16(__m512 v) {
  const __m512i u = _mm512_castps_si512(v);
  const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, lsb), _mm512_set1_epi32(0x7fff)), 16);
  const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
  return _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), rounded, quiet));
}

void widen(const uint16_t* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = n - i >= 16 ? 0xffff : static_cast<__mmask16>((1u << (n - i)) - 1);
    _mm512_mask_storeu_ps(to + i, mask, widen16(_mm256_maskz_loadu_epi16(mask, from + i)));
  }
}

template <bool kBias, bool kResidual, bool kBf16Y>
void finish_rows(const FinishArgs& s) {
  const __mmask16 tail = static_cast<__mmask16>((1u << s.n % 16) - 1);
  for (int64_t row = 0; row < s.rows; ++row) {
    const float* c = s.c + row * s.c_stride;
    const auto* residual16 = static_cast<const uint16_t*>(s.residual) + row * s.residual_stride;
    const auto* residual32 = static_cast<const float*>(s.residual) + row * s.residual_stride;
    auto* y16 = static_cast<uint16_t*>(s.y) + row * s.y_stride;
    auto* y32 = static_cast<float*>(s.y) + row * s.y_stride;
    for (int64_t i = 0; i < s.n; i += 16) {
      const __mmask16 mask = i + 16 <= s.n ? static_cast<__mmask16>(0xffff) : tail;
      __m512 v = _mm512_maskz_loadu_ps(mask, c + i);
      if constexpr (kBias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, s.bias + i));
      if constexpr (kResidual)
        v = _mm512_add_ps(v, s.residual_dtype == DType::kBF16 ? widen16(_mm256_maskz_loadu_epi16(mask, residual16 + i))
                                                              : _mm512_maskz_loadu_ps(mask, residual32 + i));
      if constexpr (kBf16Y)
        _mm256_mask_storeu_epi16(y16 + i, mask, narrow16(v));
      else
        _mm512_mask_storeu_ps(y32 + i, mask, v);
    }
  }
}

template <bool kBias, bool kResidual>
void finish_to(const FinishArgs& s) {
  s.y_dtype == DType::kBF16 ? finish_rows<kBias, kResidual, true>(s) : finish_rows<kBias, kResidual, false>(s);
}

void finish(const FinishArgs& s) {
  if (s.bias)
    s.residual ? finish_to<true, true>(s) : finish_to<true, false>(s);
  else
    s.residual ? finish_to<false, true>(s) : finish_to<false, false>(s);
}

// Sums of tile products: they are never subnormal, so the conversion by hardware has the bits of finish().
void finish_tiles(const FinishArgs& s) {
  const bool is_narrow = s.y_dtype == DType::kBF16;
  const bool stream = s.stream && reinterpret_cast<uintptr_t>(s.y) % 64 == 0 && s.y_stride % (is_narrow ? 32 : 16) == 0;
  if (s.bias || s.residual || s.n % 32 != 0 || !(is_narrow || stream)) return finish(s);
  if (!is_narrow) {
    for (int64_t row = 0; row < s.rows; ++row) {
      const float* c = s.c + row * s.c_stride;
      float* y = static_cast<float*>(s.y) + row * s.y_stride;
      for (int64_t i = 0; i < s.n; i += 16) _mm512_stream_ps(y + i, _mm512_loadu_ps(c + i));
    }
    return;
  }
  for (int64_t row = 0; row < s.rows; ++row) {
    const float* c = s.c + row * s.c_stride;
    auto* y = static_cast<uint16_t*>(s.y) + row * s.y_stride;
    for (int64_t i = 0; i < s.n; i += 32) {
      const auto v =
          reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(c + i + 16), _mm512_loadu_ps(c + i)));
      if (stream)
        _mm512_stream_si512(reinterpret_cast<__m512i*>(y + i), v);
      else
        _mm512_storeu_si512(y + i, v);
    }
  }
}

constexpr GemmKernels kAvx512{
    .name = "avx512",
    .block_f32 = block<StepF32>,
    .block_f32_bf16 = block<StepF32Bf16>,
    .block_bf16 = nullptr,
    .depth_granule = 1,
    .a_tiled = false,
    .finishes = false,
    .panel_blocks = 4,
    .few_rows = 12,
    .block_rows = 384,
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

constexpr GemmKernels with_bf16(GemmKernels kernels) {
  kernels.name = "avx512_bf16";
  kernels.block_bf16 = block<StepBf16>;
  kernels.depth_granule = 2;
  return kernels;
}
constexpr GemmKernels kAvx512Bf16 = with_bf16(kAvx512);

}  // namespace
}  // namespace pmetal::cpu

#pragma GCC pop_options

namespace pmetal::cpu {
const GemmKernels& avx512_kernels() { return kAvx512; }
const GemmKernels& avx512_bf16_kernels() { return kAvx512Bf16; }
void (*avx512_finish_tiles())(const FinishArgs&) { return finish_tiles; }
}  // namespace pmetal::cpu
