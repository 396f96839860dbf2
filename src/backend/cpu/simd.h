// Vectors of f32 for the row kernels, one struct per instruction set with the same interface, so that a kernel is
// written once (*_simd.h) and compiled for both (simd_avx2.cc, simd_avx512.cc). bf16 is widened on load and rounded to
// nearest even on store, NaN kept. `n` in load and store: that many of the kWidth elements, the others zero.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "backend/cpu/isa.h"
#include "base/dtype.h"

// GCC 12 takes the undefined pass-through operand of its own intrinsics for a mistake (PR 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#define PMETAL_INLINE static inline __attribute__((always_inline))

namespace pmetal::cpu {

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,avx2,f16c")
struct Avx512 {
  static constexpr Isa kIsa = Isa::kAvx512;
  static constexpr int kWidth = 16;
  using F = __m512;

  PMETAL_INLINE __mmask16 mask(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
  PMETAL_INLINE F widen(__m256i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)); }
  PMETAL_INLINE __m256i narrow(F v) {
    const __m512i u = _mm512_castps_si512(v);
    const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, lsb), _mm512_set1_epi32(0x7fff)), 16);
    const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), rounded, quiet));
  }
  PMETAL_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
  PMETAL_INLINE F load(const BF16* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  PMETAL_INLINE F load(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(mask(n), p); }
  PMETAL_INLINE F load(const BF16* p, int64_t n) { return widen(_mm256_maskz_loadu_epi16(mask(n), p)); }
  PMETAL_INLINE void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  PMETAL_INLINE void store(BF16* p, F v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(v)); }
  PMETAL_INLINE void store(float* p, F v, int64_t n) { _mm512_mask_storeu_ps(p, mask(n), v); }
  PMETAL_INLINE void store(BF16* p, F v, int64_t n) { _mm256_mask_storeu_epi16(p, mask(n), narrow(v)); }
  PMETAL_INLINE F all(float v) { return _mm512_set1_ps(v); }
  PMETAL_INLINE F round_bf16(F v) { return widen(narrow(v)); }
  PMETAL_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  PMETAL_INLINE F sqrt(F v) { return _mm512_sqrt_ps(v); }
  // NaN in `a` stays
  PMETAL_INLINE F max(F a, F b) {
    return _mm512_mask_mov_ps(_mm512_max_ps(b, a), _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), a);
  }
  PMETAL_INLINE F positive(F v) {  // 1 where v > 0, else 0
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_GT_OQ), all(1));
  }
  PMETAL_INLINE bool any_nan(F v) { return _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q) != 0; }
  PMETAL_INLINE bool any_equal(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ) != 0; }
  // lanes [begin, end) of v, the others `other`
  PMETAL_INLINE F between(F v, int64_t begin, int64_t end, float other) {
    const uint32_t inside = (end >= 16  ? 0xffffu
                             : end <= 0 ? 0u
                                        : (1u << end) - 1) &
                            ~(begin <= 0    ? 0u
                              : begin >= 16 ? 0xffffu
                                            : (1u << begin) - 1);
    return _mm512_mask_blend_ps(static_cast<__mmask16>(inside), _mm512_set1_ps(other), v);
  }
  PMETAL_INLINE float sum(F v) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
  }
  PMETAL_INLINE float largest(F v) { return _mm512_reduce_max_ps(v); }  // of numbers
  PMETAL_INLINE F exp(F x) {
    const F high = all(88.8f), low = all(-104.f);
    const F v = _mm512_min_ps(high, _mm512_max_ps(low, x));
    const F n = _mm512_roundscale_ps(v * all(1.44269504088896341f), 8);
    const F r = fma(n, all(2.12194440e-4f), fma(n, all(-0.693359375f), v));
    F p = all(1.9875691500e-4f);
    p = fma(p, r, all(1.3981999507e-3f));
    p = fma(p, r, all(8.3334519073e-3f));
    p = fma(p, r, all(4.1665795894e-2f));
    p = fma(p, r, all(1.6666665459e-1f));
    p = fma(p, r, all(5.0000001201e-1f));
    p = fma(p, r * r, r) + all(1.f);
    const F y = _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, low, _CMP_NLT_UQ), p, n);
    return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
  }
  // 2^x for x >= -125, to 1.5e-7; NaN stays
  PMETAL_INLINE F exp2(F x) {
    const F f = _mm512_reduce_ps(x, 0x09);  // x - floor(x)
    F p = all(1.8775766948e-3f);
    p = fma(p, f, all(8.98933969e-3f));
    p = fma(p, f, all(5.582631752e-2f));
    p = fma(p, f, all(2.4015361071e-1f));
    p = fma(p, f, all(6.9315308332e-1f));
    p = fma(p, f, all(9.999999404e-1f));
    return _mm512_scalef_ps(p, x);
  }
  // 1 / (1 + e^-x) by the reciprocal's estimate and one step of Newton, which rounds twice
  PMETAL_INLINE F sigmoid(F x) {
    const F d = exp2(_mm512_min_ps(all(125.f), _mm512_max_ps(all(-125.f), x * all(-1.44269504088896341f)))) + all(1);
    const F r = _mm512_rcp14_ps(d);
    return r * _mm512_fnmadd_ps(d, r, all(2));
  }
};
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,avx2,f16c")
// the same with the instruction that rounds to bf16, and the same bits: it takes subnormals for zero, so those go the
// other way
struct Avx512Bf16 : Avx512 {
  static constexpr Isa kIsa = Isa::kAvx512Bf16;

  PMETAL_INLINE __m256i narrow(F v) {
    constexpr int kSubnormal = 0x20;
    if (__builtin_expect(_mm512_fpclass_ps_mask(v, kSubnormal) != 0, 0)) return Avx512::narrow(v);
    return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v));
  }
  using Avx512::store;
  PMETAL_INLINE void store(BF16* p, F v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(v)); }
  PMETAL_INLINE void store(BF16* p, F v, int64_t n) { _mm256_mask_storeu_epi16(p, mask(n), narrow(v)); }
  PMETAL_INLINE F round_bf16(F v) { return widen(narrow(v)); }
  // the even and the odd elements of a line of bf16, and back: subnormals to zero
  PMETAL_INLINE void split(__m512i line, F* v) {
    v[0] = _mm512_castsi512_ps(_mm512_slli_epi32(line, 16));
    v[1] = _mm512_castsi512_ps(_mm512_and_si512(line, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  PMETAL_INLINE __m512i join(const F* v) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(v[1], v[0])));
  }
};
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
struct Avx2 {
  static constexpr Isa kIsa = Isa::kAvx2;
  static constexpr int kWidth = 8;
  using F = __m256;

  PMETAL_INLINE F widen(__m128i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16)); }
  PMETAL_INLINE __m128i narrow(F v) {
    const __m256i u = _mm256_castps_si256(v);
    const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, lsb), _mm256_set1_epi32(0x7fff)), 16);
    const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i wide = _mm256_blendv_epi8(rounded, quiet, nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  }
  PMETAL_INLINE __m256i lanes() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
  PMETAL_INLINE __m256i mask(int64_t n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lanes()); }
  PMETAL_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
  PMETAL_INLINE F load(const BF16* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  PMETAL_INLINE F load(const float* p, int64_t n) { return _mm256_maskload_ps(p, mask(n)); }
  PMETAL_INLINE F load(const BF16* p, int64_t n) {
    alignas(16) BF16 part[8] = {};
    std::memcpy(part, p, static_cast<size_t>(n) * sizeof(BF16));
    return load(part);
  }
  PMETAL_INLINE void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  PMETAL_INLINE void store(BF16* p, F v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(v)); }
  PMETAL_INLINE void store(float* p, F v, int64_t n) { _mm256_maskstore_ps(p, mask(n), v); }
  PMETAL_INLINE void store(BF16* p, F v, int64_t n) {
    alignas(16) BF16 part[8];
    store(part, v);
    std::memcpy(p, part, static_cast<size_t>(n) * sizeof(BF16));
  }
  PMETAL_INLINE F all(float v) { return _mm256_set1_ps(v); }
  PMETAL_INLINE F round_bf16(F v) { return widen(narrow(v)); }
  PMETAL_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  PMETAL_INLINE F sqrt(F v) { return _mm256_sqrt_ps(v); }
  PMETAL_INLINE F max(F a, F b) { return _mm256_blendv_ps(_mm256_max_ps(b, a), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q)); }
  PMETAL_INLINE F positive(F v) { return _mm256_and_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_GT_OQ), all(1)); }
  PMETAL_INLINE bool any_nan(F v) { return _mm256_movemask_ps(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)) != 0; }
  PMETAL_INLINE bool any_equal(F a, F b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)) != 0; }
  PMETAL_INLINE F between(F v, int64_t begin, int64_t end, float other) {
    const auto clamped = [](int64_t at) { return _mm256_set1_epi32(static_cast<int>(at < 0 ? 0 : at > 8 ? 8 : at)); };
    const __m256i inside =
        _mm256_andnot_si256(_mm256_cmpgt_epi32(clamped(begin), lanes()), _mm256_cmpgt_epi32(clamped(end), lanes()));
    return _mm256_blendv_ps(all(other), v, _mm256_castsi256_ps(inside));
  }
  PMETAL_INLINE float sum(F v) {
    const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
  }
  PMETAL_INLINE float largest(F v) {
    const __m128 quarter = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 pair = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_max_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
  }
  PMETAL_INLINE F exp(F x) {
    const F high = all(88.8f), low = all(-104.f);
    const F v = _mm256_min_ps(high, _mm256_max_ps(low, x));
    const F n = _mm256_round_ps(v * all(1.44269504088896341f), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const F r = fma(n, all(2.12194440e-4f), fma(n, all(-0.693359375f), v));
    F p = all(1.9875691500e-4f);
    p = fma(p, r, all(1.3981999507e-3f));
    p = fma(p, r, all(8.3334519073e-3f));
    p = fma(p, r, all(4.1665795894e-2f));
    p = fma(p, r, all(1.6666665459e-1f));
    p = fma(p, r, all(5.0000001201e-1f));
    p = fma(p, r * r, r) + all(1.f);
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    const auto power = [](__m256i e) {
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
    };
    F y = p * power(half) * power(_mm256_sub_epi32(whole, half));
    y = _mm256_andnot_ps(_mm256_cmp_ps(x, low, _CMP_LT_OQ), y);
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  }
  PMETAL_INLINE F sigmoid(F x) { return all(1) / (all(1) + exp(-x)); }
};
#pragma GCC pop_options

}  // namespace pmetal::cpu
