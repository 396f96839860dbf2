// Shared by the two ways through attention's forward on tiles (attention_strips.h): keys are taken in spans of 512,
// from absolute multiples on. A row meets a span whole: all its scores first, then their maximum, then
// p = 2^(s · log2 e − max) and its sum, then p · V in one chain over the keys. What several spans give is merged in
// their order. So a row's bits depend on the row alone, spans may be worked on side by side, and nothing is rescaled
// while tiles add up.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "backend/cpu/lane_tiles.h"

namespace pmetal::cpu {

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,avx2,f16c")

inline constexpr int64_t kSpan = 512, kUnit = 32, kSpanUnits = kSpan / kUnit;  // keys; of a step of the tiles
inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr int64_t kScoreRow = kSpan + 16;  // floats: rows of one column in 16 sets

// 2^x within 3e-6, far below the 2^-9 that p is kept with; -inf gives 0, NaN stays
static inline __attribute__((always_inline)) __m512 exp2_of(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, 0x9);  // x − floor(x)
  __m512 p = Avx512::all(1.353416791e-02f);
  p = Avx512::fma(p, r, Avx512::all(5.201146062e-02f));
  p = Avx512::fma(p, r, Avx512::all(2.414427569e-01f));
  p = Avx512::fma(p, r, Avx512::all(6.930038345e-01f));
  p = Avx512::fma(p, r, Avx512::all(1.000002593e+00f));
  return _mm512_scalef_ps(p, x);
}

// how raw dot products become what the exponential takes
struct ScoreScale {
  float scale, cap;
  bool is_plain() const { return cap <= 0 && scale > 0; }  // the maximum of the products is that of the scores
  float factor() const { return is_plain() ? scale * kLog2E : kLog2E; }
  void apply(float* s, int64_t n) const {
    for (int64_t j = 0; j < n; j += 16) {
      __m512 x = _mm512_load_ps(s + j) * Avx512::all(scale);
      if (cap > 0) {
        const __m512 e = Avx512::exp(Avx512::all(2 / cap) * x);
        x = Avx512::all(cap) * (Avx512::all(1) - Avx512::all(2) / (e + Avx512::all(1)));
      }
      _mm512_store_ps(s + j, x);
    }
  }
};

struct RowSum {
  float max = -std::numeric_limits<float>::infinity(), sum = 0;  // of s · log2 e; Σ 2^(s · log2 e − max)
};

// A row of scores s [512] against the keys of a span, of which it sees [begin, end). Units [first, last) of it become
// p in place: the first of the two lines of a unit's scores holds p rounded to bf16, key j beside key j + 16. Rows lie
// kScoreRow apart: sixteen of them are A tiles.
struct SoftmaxLine {
  float* s;
  int64_t begin, end, first, last;
};
// 0, 16, 1, 17, …: the halves of a line beside each other
static inline __m512i pair_order() {
  const __m512i j = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_or_si512(j, _mm512_slli_epi32(_mm512_add_epi32(j, _mm512_set1_epi32(16)), 16));
}
// kRows rows below each other that see the same are worked on side by side.
template <int kRows>
static inline __attribute__((always_inline)) void softmax_lines(const SoftmaxLine& r, const ScoreScale& scale,
                                                                RowSum* sums) {
  using F = __m512;
  const F none = Avx512::all(-std::numeric_limits<float>::infinity());
  const bool is_blind = r.begin >= r.end;
  const int64_t from = is_blind ? r.last : r.begin / kUnit, to = is_blind ? r.last : (r.end + kUnit - 1) / kUnit;
  for (int64_t i = 0; i < kRows; ++i) {
    float* s = r.s + i * kScoreRow;
    const auto clear = [&](int64_t unit) { _mm512_store_ps(s + unit * kUnit, _mm512_setzero_ps()); };
    for (int64_t u = r.first; u < from; ++u) clear(u);
    for (int64_t u = to; u < r.last; ++u) clear(u);
    sums[i] = {};
    if (is_blind) continue;
    if (!scale.is_plain()) scale.apply(s + from * kUnit, (to - from) * kUnit);
    const auto blind = [&](int64_t unit, uint32_t keys) {
      _mm512_mask_store_ps(s + unit * kUnit, static_cast<__mmask16>(keys), none);
      _mm512_mask_store_ps(s + unit * kUnit + 16, static_cast<__mmask16>(keys >> 16), none);
    };
    if (r.begin % kUnit) blind(from, (1u << r.begin % kUnit) - 1);
    if (r.end % kUnit) blind(to - 1, ~0u << r.end % kUnit);
  }
  if (is_blind) return;

  F top[kRows][2];
#pragma GCC unroll 2
  for (int i = 0; i < kRows; ++i) top[i][0] = top[i][1] = none;
  for (int64_t u = from; u < to; ++u)
#pragma GCC unroll 2
    for (int i = 0; i < kRows; ++i) {
      const float* at = r.s + i * kScoreRow + u * kUnit;
      _mm_prefetch(at + kRows * kScoreRow, _MM_HINT_T0);
      _mm_prefetch(at + kRows * kScoreRow + 16, _MM_HINT_T0);
      top[i][0] = _mm512_max_ps(_mm512_load_ps(at), top[i][0]);  // passes over NaN: its own p is NaN
      top[i][1] = _mm512_max_ps(_mm512_load_ps(at + 16), top[i][1]);
    }
  const float factor = scale.factor();
  const F f = Avx512::all(factor);
  F shift[kRows], sum[kRows][2];
#pragma GCC unroll 2
  for (int i = 0; i < kRows; ++i) {
    sums[i].max = _mm512_reduce_max_ps(_mm512_max_ps(top[i][0], top[i][1])) * factor;
    shift[i] = Avx512::all(sums[i].max == -std::numeric_limits<float>::infinity() ? 0.f : sums[i].max);
    sum[i][0] = sum[i][1] = _mm512_setzero_ps();
  }
  const __m512i pairs = pair_order();
  for (int64_t u = from; u < to; ++u)
#pragma GCC unroll 2
    for (int i = 0; i < kRows; ++i) {
      float* at = r.s + i * kScoreRow + u * kUnit;
      const F x = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(at), f, shift[i]));
      const F y = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(at + 16), f, shift[i]));
      sum[i][0] += x;
      sum[i][1] += y;
      _mm512_store_si512(at, _mm512_permutexvar_epi16(pairs, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(y, x))));
    }
#pragma GCC unroll 2
  for (int i = 0; i < kRows; ++i) sums[i].sum = _mm512_reduce_add_ps(sum[i][0] + sum[i][1]);
}

// Rows j and j + 16 of a unit of values [32, d] as B tiles [16 pairs of keys][16 d], two for each 32 columns, the pairs
// of them `apart` bytes apart. The first tile has columns 0 … 3, 8 … 11, 16 … 19, 24 … 27, the second the others: that
// is what unpacking gives. put_row() sets them right.
inline void pack_unit_of_values(const char* rows, int64_t stride, int64_t d, char* to, int64_t apart) {
  for (int64_t i = 0; i < d; i += 32, to += apart)
    for (int64_t j = 0; j < 16; ++j) {
      const __m512i even = _mm512_loadu_si512(rows + j * stride + i * 2),
                    odd = _mm512_loadu_si512(rows + (j + 16) * stride + i * 2);
      _mm512_store_si512(to + j * 64, _mm512_unpacklo_epi16(even, odd));
      _mm512_store_si512(to + kTileBytes + j * 64, _mm512_unpackhi_epi16(even, odd));
    }
}

inline bool all_finite(const char* values, int64_t count) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  __mmask32 bad = 0;
  for (int64_t i = 0; i < count; i += 32)
    bad |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(_mm512_loadu_si512(values + i * 2), exponent), exponent);
  return bad == 0;
}

// o [d], in the order of the tiles, times factor as a row of bf16
inline void put_row(const float* o, float factor, int64_t d, void* to) {
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  const __m512 f = Avx512::all(factor);
  for (int64_t i = 0; i < d; i += 32) {
    const auto row =
        reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_load_ps(o + i + 16) * f, _mm512_load_ps(o + i) * f));
    _mm512_storeu_si512(static_cast<char*>(to) + i * 2, _mm512_permutexvar_epi64(order, row));
  }
}

// What a row has of the spans so far, and what the next one gives. The first one is taken as it is, so that it does not
// matter whether others were asked.
inline void merge_span(RowSum* all, float* o, const RowSum& span, const float* o_span, int64_t d) {
  const float none = -std::numeric_limits<float>::infinity();
  if (span.max == none && span.sum == 0) return;
  if (all->max == none && all->sum == 0) {
    *all = span;
    for (int64_t i = 0; i < d; i += 16) _mm512_store_ps(o + i, _mm512_load_ps(o_span + i));
    return;
  }
  const float max = std::max(all->max, span.max), shift = max == none ? 0 : max;
  const float before = std::exp2(all->max - shift), now = std::exp2(span.max - shift);
  *all = {max, all->sum * before + span.sum * now};
  for (int64_t i = 0; i < d; i += 16)
    _mm512_store_ps(
        o + i, Avx512::fma(_mm512_load_ps(o + i), Avx512::all(before), _mm512_load_ps(o_span + i) * Avx512::all(now)));
}

#pragma GCC pop_options

}  // namespace pmetal::cpu
