// The functions of fused_rows.h on vectors. Included by simd_avx512_bf16.cc under its instruction set, after
// simd_rows.h.
#pragma once

namespace pmetal::cpu {
namespace {

template <class V>
void norm_one_row(const void* x, const void* weight, float eps, int64_t n, void* y) {
  using F = typename V::F;
  const auto* row = static_cast<const BF16*>(x);
  F squares[2] = {V::all(0), V::all(0)};
  add_squares<V>(row, n, squares, [](int64_t) {});
  scale_by_norm<V, BF16>(row, V::sum(squares[0] + squares[1]), static_cast<const BF16*>(weight), eps, 0, n,
                         static_cast<BF16*>(y));
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
  for (int64_t r = 0; r < s.rows; ++r)
    for (int64_t i = 0; i < s.n; i += 32) {
      const float* c = s.c + r * s.c_stride + i;
      const auto up = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(c + 16), _mm512_loadu_ps(c)));
      __m512 gates[2], ups[2], slope;
      V::split(_mm512_loadu_si512(s.gate + r * s.gate_stride + i), gates);
      V::split(up, ups);
      for (int k = 0; k < 2; ++k) ups[k] = activate<V, kActivation>(gates[k], slope) * ups[k];
      auto* to = reinterpret_cast<__m512i*>(static_cast<uint16_t*>(s.y) + r * s.y_stride + i);
      _mm512_stream_si512(to, V::join(ups));
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
