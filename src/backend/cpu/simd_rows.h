// Row kernels on vectors: norms, rope, glu. Included by simd_avx512.cc and simd_avx2.cc under their instruction set.
// A row is one task's work; sums run in the lanes of one vector in order of the row, so bits depend on the row alone.
#pragma once

namespace pmetal::cpu {
namespace {

template <class V>
const char* no_level() {
  return V::kIsa == Isa::kAvx2     ? "AVX2 is switched off"
         : V::kIsa == Isa::kAvx512 ? "no AVX-512 here"
                                   : "no AVX-512 BF16 here";
}

// what all row kernels take: bf16 or f32 in dense rows, one type
template <class V>
const char* decline_rows(std::initializer_list<const View*> views) {
  if (isa() < V::kIsa) return no_level<V>();
  const DType dtype = (*views.begin())->dtype;
  if (dtype != DType::kBF16 && dtype != DType::kF32) return "takes bf16 and f32 alone";
  for (const View* v : views) {
    if (!*v) continue;
    if (v->dtype != dtype) return "takes one type alone";
    if (v->dim(-1) > 1 && v->stride(-1) != 1) return "rows must be dense";
  }
  return nullptr;
}

template <class Body>
void with_type(DType dtype, Body&& body) {
  if (dtype == DType::kBF16)
    body(BF16{});
  else
    body(float{});
}

// ---- rms_norm -------------------------------------------------------------------------------------------------------

template <class V, class T>
PMETAL_INLINE void scale_by_norm(const T* x, float squares, const T* w, float eps, float offset, int64_t n, T* y) {
  using F = typename V::F;
  const F rstd = V::all(1 / std::sqrt(squares / static_cast<float>(n) + eps)), shift = V::all(offset);
  sweep_pairs<V>(n, [&](int64_t i, auto part) {
    constexpr int m = kVectors<decltype(part)>;
    F v[m], scale[m];
    fetch<V>(x + i, v, part);
    fetch<V>(w + i, scale, part);
    for (int k = 0; k < m; ++k) v[k] = v[k] * rstd;
    if (offset == 0) round_all<V, T>(v, part);
    for (int k = 0; k < m; ++k) v[k] = v[k] * (scale[k] + shift);
    deliver<V>(y + i, v, part);
  });
}

// Σ x² of a row in two vectors
template <class V, class T, class At>
PMETAL_INLINE void add_squares(const T* x, int64_t n, typename V::F (&squares)[2], At&& at) {
  sweep_pairs<V>(n, [&](int64_t i, auto part) {
    constexpr int m = kVectors<decltype(part)>;
    typename V::F v[m];
    at(i);
    fetch<V>(x + i, v, part);
    for (int k = 0; k < m; ++k) squares[k] = V::fma(v[k], v[k], squares[k]);
  });
}

template <class V, class T>
void norm_row(const ops::RmsNormArgs& args, int64_t r) {
  using F = typename V::F;
  const int64_t n = args.x.dim(1);
  const T* x = row_of<T>(args.x, r);
  const Ahead<T> ahead(args.x, r), residual_ahead(args.residual, r);
  F squares[2] = {V::all(0), V::all(0)};
  if (args.residual) {
    const T* residual = row_of<T>(args.residual, r);
    T* sum = row_of<T>(args.sum, r);
    sweep_pairs<V>(n, [&](int64_t i, auto part) {
      constexpr int m = kVectors<decltype(part)>;
      F v[m], more[m];
      ahead.at(i), residual_ahead.at(i);
      fetch<V>(x + i, v, part);
      fetch<V>(residual + i, more, part);
      for (int k = 0; k < m; ++k) v[k] += more[k];
      round_all<V, T>(v, part);
      deliver<V>(sum + i, v, part);
      for (int k = 0; k < m; ++k) squares[k] = V::fma(v[k], v[k], squares[k]);
    });
    x = sum;
  } else {
    add_squares<V>(x, n, squares, [&](int64_t i) { ahead.at(i); });
  }
  scale_by_norm<V, T>(x, V::sum(squares[0] + squares[1]), args.weight.as<T>(), args.eps, args.offset, n,
                      row_of<T>(args.y, r));
}

// Both sums in one pass: Σ x² and Σ x d with d = dy (w + offset); then dx = rstd · d − x · rstd³ · Σ x d / n
template <class V, class T>
void norm_backward_row(const ops::RmsNormBackwardArgs& args, int64_t r) {
  using F = typename V::F;
  const int64_t n = args.x.dim(1);
  const T *x = row_of<T>(args.x, r), *dy = row_of<T>(args.dy, r), *w = args.weight.as<T>();
  const Ahead<T> ahead(args.x, r), dy_ahead(args.dy, r), add_ahead(args.dx_add, r);
  const F offset = V::all(args.offset);
  F squares[2] = {V::all(0), V::all(0)}, dots[2] = {V::all(0), V::all(0)};
  sweep_pairs<V>(n, [&](int64_t i, auto part) {
    constexpr int m = kVectors<decltype(part)>;
    F v[m], d[m], scale[m];
    ahead.at(i), dy_ahead.at(i), add_ahead.at(i);
    fetch<V>(x + i, v, part);
    fetch<V>(dy + i, d, part);
    fetch<V>(w + i, scale, part);
    for (int k = 0; k < m; ++k) {
      squares[k] = V::fma(v[k], v[k], squares[k]);
      dots[k] = V::fma(d[k] * (scale[k] + offset), v[k], dots[k]);
    }
  });
  const float wide = static_cast<float>(n), rstd = 1 / std::sqrt(V::sum(squares[0] + squares[1]) / wide + args.eps);
  const F factor = V::all(rstd), back = V::all(-rstd * rstd * rstd * (V::sum(dots[0] + dots[1]) / wide));
  T* dx = row_of<T>(args.dx, r);
  const T* add = args.dx_add ? row_of<T>(args.dx_add, r) : nullptr;
  sweep_pairs<V>(n, [&](int64_t i, auto part) {
    constexpr int m = kVectors<decltype(part)>;
    F v[m], d[m], scale[m], more[m];
    fetch<V>(x + i, v, part);
    fetch<V>(dy + i, d, part);
    fetch<V>(w + i, scale, part);
    for (int k = 0; k < m; ++k) v[k] = V::fma(v[k], back, factor * (d[k] * (scale[k] + offset)));
    if (add) {
      fetch<V>(add + i, more, part);
      for (int k = 0; k < m; ++k) v[k] += more[k];
    }
    deliver<V>(dx + i, v, part);
  });
}

// one vector's lanes in order, as the plain kernel sums: x̂ is rounded, and another order would round some x̂ elsewhere
template <class V, class T>
float rstd_of_row(const T* x, int64_t n, float eps) {
  typename V::F squares = V::all(0);
  sweep<V>(n, [&](int64_t i, auto part) {
    const typename V::F s = get<V>(x + i, part);
    squares = V::fma(s, s, squares);
  });
  return 1 / std::sqrt(V::sum(squares) / static_cast<float>(n) + eps);
}

// the weight's gradient: columns are cut among threads, rows added in order
template <class V, class T>
void norm_backward_weight(const ops::RmsNormBackwardArgs& args, const KernelContext& kernel) {
  using F = typename V::F;
  constexpr int64_t kColumns = 4 * V::kWidth, kRows = 256;
  const int64_t n = args.x.dim(1), rows = args.x.dim(0);
  const bool rounds = args.offset == 0;
  kernel.threads->parallel_for((n + kColumns - 1) / kColumns, grain_of(rows * kColumns),
                               [&](int64_t begin, int64_t end) {
                                 const int64_t first = begin * kColumns, width = std::min(n, end * kColumns) - first;
                                 float* dw = args.dweight.as<float>() + first;
                                 float rstd[kRows];
                                 for (int64_t r0 = 0; r0 < rows; r0 += kRows) {
                                   const int64_t m = std::min(kRows, rows - r0);
                                   for (int64_t r = 0; r < m; ++r)
                                     rstd[r] = rstd_of_row<V>(row_of<T>(args.x, r0 + r), n, args.eps);
                                   sweep<V>(width, [&](int64_t i, auto part) {
                                     F sum = get<V>(dw + i, part);
                                     for (int64_t r = 0; r < m; ++r) {
                                       F v = get<V>(row_of<T>(args.x, r0 + r) + first + i, part) * V::all(rstd[r]);
                                       if (rounds) v = rounded<V, T>(v);
                                       sum = V::fma(get<V>(row_of<T>(args.dy, r0 + r) + first + i, part), v, sum);
                                     }
                                     put<V>(dw + i, sum, part);
                                   });
                                 }
                               });
}

// ---- glu ------------------------------------------------------------------------------------------------------------

// value and slope of an activation
template <class V>
PMETAL_INLINE typename V::F sigmoid(typename V::F x) {
  return V::sigmoid(x);
}

template <class V, ops::Activation kActivation>
PMETAL_INLINE typename V::F activate(typename V::F x, typename V::F& slope) {
  using F = typename V::F;
  using ops::Activation;
  const F one = V::all(1);
  if constexpr (kActivation == Activation::kSilu) {
    const F p = sigmoid<V>(x);
    slope = p * (one + x * (one - p));
    return x * p;
  } else if constexpr (kActivation == Activation::kQuickGelu) {
    const F k = V::all(1.702f), p = sigmoid<V>(k * x);
    slope = p * (one + k * x * (one - p));
    return x * p;
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    const F c = V::all(0.79788456080286535588f), k = V::all(0.044715f);
    const F t = one - V::all(2) * sigmoid<V>(V::all(-2) * c * (x + k * x * x * x));
    slope = V::all(0.5f) * (one + t) + V::all(0.5f) * x * (one - t * t) * c * (one + V::all(3) * k * x * x);
    return V::all(0.5f) * x * (one + t);
  } else if constexpr (kActivation == Activation::kRelu) {
    slope = V::positive(x);
    return V::max(x, V::all(0));
  } else if constexpr (kActivation == Activation::kRelu2) {
    slope = V::all(2) * V::max(V::all(0), x);  // 0 for NaN
    return V::max(x, V::all(0)) * V::max(x, V::all(0));
  } else {
    slope = one;
    return x;
  }
}

template <class V, class T, ops::Activation kActivation>
void glu_rows(const ops::GluArgs& args, const KernelContext& kernel) {
  using F = typename V::F;
  const int64_t n = args.gate.dim(1);
  const bool past = goes_past<V, T>(args.y);
  for_rows(kernel, args.gate.dim(0), n, [&](int64_t r) {
    const T* gate = row_of<T>(args.gate, r);
    const T* up = args.up ? row_of<T>(args.up, r) : nullptr;
    T* y = row_of<T>(args.y, r);
    const Ahead<T> gate_ahead(args.gate, r), up_ahead(args.up, r);
    sweep_pairs<V>(n, [&](int64_t i, auto part) {
      constexpr int m = kVectors<decltype(part)>;
      F g[m], u[m], slope;
      gate_ahead.at(i), up_ahead.at(i);
      fetch<V>(gate + i, g, part);
      for (int k = 0; k < m; ++k) g[k] = activate<V, kActivation>(g[k], slope);
      if (up) {
        fetch<V>(up + i, u, part);
        for (int k = 0; k < m; ++k) g[k] = g[k] * u[k];
      }
      deliver<V>(y + i, g, part, past);
    });
    settle_past(past);
  });
}

template <class V, class T, ops::Activation kActivation>
void glu_backward_rows(const ops::GluArgs& args, const KernelContext& kernel) {
  using F = typename V::F;
  const int64_t n = args.gate.dim(1);
  const bool past = goes_past<V, T>(args.dgate) && goes_past<V, T>(args.dup);
  for_rows(kernel, args.gate.dim(0), n, [&](int64_t r) {
    const T *gate = row_of<T>(args.gate, r), *dy = row_of<T>(args.dy, r);
    const T* up = args.up ? row_of<T>(args.up, r) : nullptr;
    T* dgate = args.dgate ? row_of<T>(args.dgate, r) : nullptr;
    T* dup = args.dup ? row_of<T>(args.dup, r) : nullptr;
    const Ahead<T> gate_ahead(args.gate, r), up_ahead(args.up, r), dy_ahead(args.dy, r);
    sweep_pairs<V>(n, [&](int64_t i, auto part) {
      constexpr int m = kVectors<decltype(part)>;
      F g[m], d[m], v[m], slope[m];
      gate_ahead.at(i), up_ahead.at(i), dy_ahead.at(i);
      fetch<V>(gate + i, g, part);
      fetch<V>(dy + i, d, part);
      for (int k = 0; k < m; ++k) {
        v[k] = activate<V, kActivation>(g[k], slope[k]) * d[k];
        slope[k] = slope[k] * d[k];
      }
      if (dup) deliver<V>(dup + i, v, part, past);
      if (!dgate) return;
      if (up) {
        fetch<V>(up + i, v, part);
        for (int k = 0; k < m; ++k) slope[k] = slope[k] * v[k];
      }
      deliver<V>(dgate + i, slope, part, past);
    });
    settle_past(past);
  });
}

template <class Body>
void with_activation(ops::Activation activation, Body&& body) {
  using ops::Activation;
  switch (activation) {
    case Activation::kSilu: return body(std::integral_constant<Activation, Activation::kSilu>{});
    case Activation::kQuickGelu: return body(std::integral_constant<Activation, Activation::kQuickGelu>{});
    case Activation::kGeluTanh: return body(std::integral_constant<Activation, Activation::kGeluTanh>{});
    case Activation::kRelu: return body(std::integral_constant<Activation, Activation::kRelu>{});
    case Activation::kRelu2: return body(std::integral_constant<Activation, Activation::kRelu2>{});
    default: return body(std::integral_constant<Activation, Activation::kIdentity>{});
  }
}
}  // namespace

template <class V>
const char* SimdLevel<V>::decline(const ops::RmsNormArgs& a, const KernelContext&) {
  return decline_rows<V>({&a.x, &a.residual, &a.weight, &a.sum, &a.y});
}
template <class V>
void SimdLevel<V>::run(const ops::RmsNormArgs& args, const KernelContext& kernel) {
  with_type(args.x.dtype, [&](auto zero) {
    for_rows(kernel, args.x.dim(0), args.x.dim(1), [&](int64_t r) { norm_row<V, decltype(zero)>(args, r); });
  });
}

template <class V>
const char* SimdLevel<V>::decline(const ops::RmsNormBackwardArgs& a, const KernelContext&) {
  if (a.dweight && (a.dweight.dtype != DType::kF32 || a.dweight.stride(0) != 1)) return "dweight must be dense f32";
  return decline_rows<V>({&a.x, &a.weight, &a.dy, &a.dx, &a.dx_add});
}
template <class V>
void SimdLevel<V>::run(const ops::RmsNormBackwardArgs& args, const KernelContext& kernel) {
  if (args.x.numel() == 0) return;
  with_type(args.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (args.dx) for_rows(kernel, args.x.dim(0), args.x.dim(1), [&](int64_t r) { norm_backward_row<V, T>(args, r); });
    if (args.dweight) norm_backward_weight<V, T>(args, kernel);
  });
}

template <class V>
const char* SimdLevel<V>::decline(const ops::GluArgs& a, const KernelContext&) {
  if (a.activation == ops::Activation::kGelu) return "does not take gelu by erf";
  return decline_rows<V>({&a.gate, &a.up, &a.y});
}
template <class V>
void SimdLevel<V>::run(const ops::GluArgs& args, const KernelContext& kernel) {
  with_type(args.gate.dtype, [&](auto zero) {
    with_activation(args.activation, [&](auto a) { glu_rows<V, decltype(zero), decltype(a)::value>(args, kernel); });
  });
}

template <class V>
const char* SimdLevel<V>::decline_backward(const ops::GluArgs& a, const KernelContext&) {
  if (a.activation == ops::Activation::kGelu) return "does not take gelu by erf";
  return decline_rows<V>({&a.gate, &a.up, &a.dy, &a.dgate, &a.dup});
}
template <class V>
void SimdLevel<V>::run_backward(const ops::GluArgs& args, const KernelContext& kernel) {
  with_type(args.gate.dtype, [&](auto zero) {
    with_activation(args.activation,
                    [&](auto a) { glu_backward_rows<V, decltype(zero), decltype(a)::value>(args, kernel); });
  });
}

template <class V, class T>
PMETAL_INLINE void turn_head(const T* x, const float* cos, const float* sin, typename V::F sign, int64_t half,
                             int64_t d, T* y) {
  using F = typename V::F;
  sweep<V>(half, [&](int64_t i, auto part) {
    const F c = get<V>(cos + i, part), s = get<V>(sin + i, part) * sign;
    const F a = get<V>(x + i, part), b = get<V>(x + half + i, part);
    put<V>(y + i, V::fma(a, c, -(b * s)), part);
    put<V>(y + half + i, V::fma(b, c, a * s), part);
  });
  if (d > 2 * half) std::memcpy(y + 2 * half, x + 2 * half, static_cast<size_t>(d - 2 * half) * sizeof(T));
}

template <class V>
const char* SimdLevel<V>::decline(const ops::RopeArgs& a, const KernelContext&) {
  if (a.interleaved) return "takes half-split pairs alone";
  if (a.cos.dtype != DType::kF32 || a.sin.dtype != DType::kF32) return "the table must be f32";
  return decline_rows<V>({&a.x, &a.y});
}
template <class V>
void SimdLevel<V>::run(const ops::RopeArgs& args, const KernelContext& kernel) {
  const int64_t heads = args.x.dim(1), d = args.x.dim(2), half = args.cos.dim(1);
  const typename V::F sign = V::all(args.inverse ? -1.f : 1.f);
  with_type(args.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    for_rows(kernel, args.x.dim(0), heads * d, [&](int64_t t) {
      const float *cos = row_of<float>(args.cos, t), *sin = row_of<float>(args.sin, t);
      for (int64_t h = 0; h < heads; ++h) {
        const T* x = row_of<T>(args.x, t) + h * args.x.stride(1);
        T* y = row_of<T>(args.y, t) + h * args.y.stride(1);
        turn_head<V>(x, cos, sin, sign, half, d, y);
      }
    });
  });
}

}  // namespace pmetal::cpu
