// The rows of score_rows.h on vectors. Included by simd_avx512.cc and simd_avx2.cc after simd_rows.h.
#pragma once

namespace pmetal::cpu {
namespace {

template <class V>
PMETAL_INLINE typename V::F tanh_of(typename V::F x) {  // 1 − 2 / (e^2x + 1)
  return V::all(1) - V::all(2) / (V::exp(V::all(2) * x) + V::all(1));
}

template <class V, class T>
void softmax_row(const SoftmaxRow& a) {
  using F = typename V::F;
  constexpr int kVectors = kScoreColumns / V::kWidth;
  const float none = -std::numeric_limits<float>::infinity();
  const F scale = V::all(a.scale), cap = V::all(a.cap), inverse_cap = V::all(a.cap > 0 ? 1 / a.cap : 0);
  F s[kVectors], top = V::all(none);
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) {
    s[i] = V::load(a.scores + i * V::kWidth) * scale;
    if (a.cap > 0) s[i] = cap * tanh_of<V>(s[i] * inverse_cap);
    s[i] = V::between(s[i], a.begin - i * V::kWidth, a.end - i * V::kWidth, none);
    top = V::max(s[i], top);
  }
  float max = V::any_nan(top) ? std::numeric_limits<float>::quiet_NaN() : V::largest(top);
  max = max > *a.max || std::isnan(max) ? max : *a.max;
  const float shift = max == none ? 0 : max;
  const float factor = max == *a.max ? 1.f : exp_of(*a.max - shift);
  F sum = V::all(0);
  T* p = static_cast<T*>(a.p);
  const F shifts = V::all(shift);
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) {
    const F e = V::between(V::exp(s[i] - shifts), a.begin - i * V::kWidth, a.end - i * V::kWidth, 0);
    sum += e;
    V::store(p + i * V::kWidth, e);
    if constexpr (std::is_same_v<T, BF16>) V::store(static_cast<BF16*>(a.p_rest) + i * V::kWidth, e - V::round_bf16(e));
  }
  *a.sum = *a.sum * factor + V::sum(sum);
  *a.max = max;
  if (factor != 1) {
    const F f = V::all(factor);
    for (int64_t i = 0; i < a.n; i += V::kWidth) V::store(a.out + i, V::load(a.out + i) * f);
  }
}

template <class V, class T>
void gradient_row(const ScoreGradRow& a) {
  using F = typename V::F;
  T *p = static_cast<T*>(a.p), *ds = static_cast<T*>(a.ds);
  const F scale = V::all(a.scale), cap = V::all(a.cap), inverse_cap = V::all(a.cap > 0 ? 1 / a.cap : 0);
  const F lse = V::all(a.lse), delta = V::all(a.delta);
  for (int64_t i = 0; i < kScoreColumns; i += V::kWidth) {
    F s = V::load(a.scores + i) * scale, slope = scale;
    if (a.cap > 0) {
      const F t = tanh_of<V>(s * inverse_cap);
      s = cap * t;
      slope = scale * (V::all(1) - t * t);
    }
    const F e = V::exp(s - lse);
    V::store(p + i, V::between(e, a.begin - i, a.end - i, 0));
    V::store(ds + i, V::between(e * (V::load(a.dp + i) - delta) * slope, a.begin - i, a.end - i, 0));
  }
}

template <class V>
void logit_row(const LogitRow& a) {
  using F = typename V::F;
  const float none = -std::numeric_limits<float>::infinity();
  const F scale = V::all(a.scale), cap = V::all(a.cap), inverse_cap = V::all(a.cap > 0 ? 1 / a.cap : 0);
  F top = V::all(none);
  const bool shapes = a.scale != 1 || a.cap > 0;
  sweep<V>(a.n, [&](int64_t i, auto part) {
    F z = get<V>(a.z + i, part);
    if (shapes) {
      z = z * scale;
      if (a.cap > 0) z = cap * tanh_of<V>(z * inverse_cap);
      put<V>(a.z + i, z, part);
    }
    if constexpr (std::is_same_v<decltype(part), Part>) z = V::between(z, 0, part.n, none);
    top = V::max(z, top);
  });
  const float largest = V::any_nan(top) ? std::numeric_limits<float>::quiet_NaN() : V::largest(top);
  const float before = *a.max;
  float max = before;
  if (largest > before || std::isnan(largest)) {
    max = largest;
    int64_t at = 0;
    while (at < a.n && a.z[at] != largest) ++at;  // the first of equal maxima
    *a.best = a.first + at;
  }
  const float shift = max == none ? 0 : max;
  const float factor = max == before ? 1.f : exp_of(before - shift), moved = before == none ? 0 : before - shift;
  F sum = V::all(0), weighted = V::all(0);
  const F shifts = V::all(shift);
  BF16* narrow = reinterpret_cast<BF16*>(a.z);  // never ahead of the read
  sweep<V>(a.n, [&](int64_t i, auto part) {
    const F z = get<V>(a.z + i, part), d = z - shifts;
    F e = V::exp(d);
    if constexpr (std::is_same_v<decltype(part), Part>) e = V::between(e, 0, part.n, 0);
    sum += e;
    weighted = V::fma(e, V::max(d, V::all(-1e30f)), weighted);
    if (!a.want_p) return;
    if (a.cap > 0) {
      const F t = z * inverse_cap;
      e = e * (V::all(1) - t * t);
    }
    if (a.narrow)
      put<V>(narrow + i, e, part);
    else
      put<V>(a.z + i, e, part);
  });
  *a.weighted = factor * (*a.weighted + moved * *a.sum) + V::sum(weighted);
  *a.sum = *a.sum * factor + V::sum(sum);
  *a.max = max;
  *a.factor = factor;
}

template <class V>
float dot_rows(const void* a, const void* b, int64_t n, DType dtype) {
  typename V::F sum = V::all(0);
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T *x = static_cast<const T*>(a), *y = static_cast<const T*>(b);
    sweep<V>(n, [&](int64_t i, auto part) { sum = V::fma(get<V>(x + i, part), get<V>(y + i, part), sum); });
  });
  return V::sum(sum);
}

template <class V>
void scale_row(const float* x, float a, void* y, DType y_dtype, int64_t n) {
  const typename V::F factor = V::all(a);
  with_type(y_dtype, [&](auto zero) {
    using T = decltype(zero);
    T* to = static_cast<T*>(y);
    sweep<V>(n, [&](int64_t i, auto part) { put<V>(to + i, get<V>(x + i, part) * factor, part); });
  });
}

template <class V>
void add_scaled_row(const float* x, float a, float* y, int64_t n) {
  const typename V::F factor = V::all(a);
  sweep<V>(
      n, [&](int64_t i, auto part) { put<V>(y + i, V::fma(get<V>(x + i, part), factor, get<V>(y + i, part)), part); });
}

template <class V>
constexpr ScoreRows score_table() {
  return {[](const SoftmaxRow& a, bool bf16) { bf16 ? softmax_row<V, BF16>(a) : softmax_row<V, float>(a); },
          [](const ScoreGradRow& a, bool bf16) { bf16 ? gradient_row<V, BF16>(a) : gradient_row<V, float>(a); },
          logit_row<V>,
          dot_rows<V>,
          scale_row<V>,
          add_scaled_row<V>};
}

}  // namespace
}  // namespace pmetal::cpu
