// The functions of fused_rows.h on vectors. Included by simd_avx512_bf16.cc under its instruction set, after
// simd_rows.h.
#pragma once

namespace pmetal::cpu {
namespace {

template <class V>
void norm_one_row(const void* x, const void* weight, float eps, int64_t n, void* y) {
  using F = typename V::F;
  const auto* row = static_cast<const BF16*>(x);
  F squares = V::all(0);
  sweep<V>(n, [&](int64_t i, auto part) {
    const F s = get<V>(row + i, part);
    squares = V::fma(s, s, squares);
  });
  scale_by_norm<V, BF16>(row, V::sum(squares), static_cast<const BF16*>(weight), eps, 0, n, static_cast<BF16*>(y));
}

// the result goes past the caches, whole lines at a time
inline bool streams_lines(const FinishArgs& s) {
  return s.stream && s.n % 32 == 0 && reinterpret_cast<uintptr_t>(s.y) % 64 == 0 && s.y_stride % 32 == 0;
}

// y[i] = f(i, part, round(c + bias)) for each row
template <class V, class Each>
PMETAL_INLINE void finish_rows(const FinishArgs& s, Each&& each) {
  using F = typename V::F;
  const bool streams = streams_lines(s);
  for (int64_t r = 0; r < s.rows; ++r) {
    const float* c = s.c + r * s.c_stride;
    BF16* y = static_cast<BF16*>(s.y) + r * s.y_stride;
    const auto at = [&](int64_t i, auto part) {
      F v = get<V>(c + i, part);
      if (s.bias) v = v + get<V>(s.bias + i, part);
      return each(r, i, part, V::round_bf16(v));
    };
    if (streams) {
      for (int64_t i = 0; i < s.n; i += 32) {
        const auto low = V::narrow(at(i, Full{})), high = V::narrow(at(i + 16, Full{}));
        _mm512_stream_si512(reinterpret_cast<__m512i*>(y + i),
                            _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
      }
      continue;
    }
    sweep<V>(s.n, [&](int64_t i, auto part) { put<V>(y + i, at(i, part), part); });
  }
}

// The same for whole lines of 32 sums, which are no subnormals: the bf16 of a line stay in pairs, one half of a 32-bit
// lane each, and nothing is moved across lanes but the result.
template <ops::Activation kActivation>
void finish_glu_lines(const FinishArgs& s) {
  using V = Avx512Bf16;
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const auto even = [](__m512i line) { return _mm512_castsi512_ps(_mm512_slli_epi32(line, 16)); };
  const auto odd = [](__m512i line) {
    return _mm512_castsi512_ps(_mm512_and_si512(line, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  };
  for (int64_t r = 0; r < s.rows; ++r)
    for (int64_t i = 0; i < s.n; i += 32) {
      const float* c = s.c + r * s.c_stride + i;
      const auto up = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(c + 16), _mm512_loadu_ps(c)));
      const __m512i gate = _mm512_loadu_si512(s.gate + r * s.gate_stride + i);
      __m512 slope;
      const __m512 y0 = activate<V, kActivation>(even(gate), slope) * even(up);
      const __m512 y1 = activate<V, kActivation>(odd(gate), slope) * odd(up);
      auto* to = reinterpret_cast<__m512i*>(static_cast<uint16_t*>(s.y) + r * s.y_stride + i);
      __m512i y = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(y1, y0));
      if (__builtin_expect((_mm512_fpclass_ps_mask(y0, 0x20) | _mm512_fpclass_ps_mask(y1, 0x20)) != 0, 0))
        y = _mm512_inserti64x4(_mm512_castsi256_si512(V::narrow(y0)), V::narrow(y1), 1);
      _mm512_stream_si512(to, _mm512_permutexvar_epi16(order, y));
    }
}

template <class V, ops::Activation kActivation>
void finish_glu(const FinishArgs& s) {
  if (!s.bias && streams_lines(s)) return finish_glu_lines<kActivation>(s);
  finish_rows<V>(s, [&](int64_t r, int64_t i, auto part, typename V::F up) {
    const auto* gate = reinterpret_cast<const BF16*>(s.gate + r * s.gate_stride);
    typename V::F slope;
    return activate<V, kActivation>(get<V>(gate + i, part), slope) * up;
  });
}
template <class V>
void (*finish_glu_of(ops::Activation activation))(const FinishArgs&) {
  if (activation == ops::Activation::kGelu) return nullptr;
  void (*found)(const FinishArgs&) = nullptr;
  with_activation(activation, [&](auto a) { found = finish_glu<V, decltype(a)::value>; });
  return found;
}

template <class V>
void finish_add(const FinishArgs& s) {
  finish_rows<V>(s, [&](int64_t r, int64_t i, auto part, typename V::F v) {
    return v + get<V>(static_cast<const BF16*>(s.residual) + r * s.residual_stride + i, part);
  });
}

}  // namespace
}  // namespace pmetal::cpu
