// Row kernels on vectors: norms, rope, glu. Included by simd_avx512.cc and simd_avx2.cc under their instruction set.
// A row is one task's work; sums run in the lanes of one vector in order of the row, so bits depend on the row alone.
#pragma once

namespace pmetal::cpu {
namespace {

struct Full {};
struct Part {
  int64_t n;
};
template <class V, class T>
PMETAL_INLINE typename V::F get(const T* p, Full) {
  return V::load(p);
}
template <class V, class T>
PMETAL_INLINE typename V::F get(const T* p, Part part) {
  return V::load(p, part.n);
}
template <class V, class T>
PMETAL_INLINE void put(T* p, typename V::F v, Full) {
  V::store(p, v);
}
template <class V, class T>
PMETAL_INLINE void put(T* p, typename V::F v, Part part) {
  V::store(p, v, part.n);
}
template <class V, class T>
PMETAL_INLINE typename V::F rounded(typename V::F v) {
  if constexpr (std::is_same_v<T, BF16>)
    return V::round_bf16(v);
  else
    return v;
}

// body(i, Full or Part) over [0, n)
template <class V, class Body>
PMETAL_INLINE void sweep(int64_t n, Body&& body) {
  int64_t i = 0;
  for (; i + V::kWidth <= n; i += V::kWidth) body(i, Full{});
  if (i < n) body(i, Part{n - i});
}

template <class T>
T* row_of(const View& v, int64_t row) {
  return static_cast<T*>(v.data) + row * v.stride(0);
}

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
  sweep<V>(n, [&](int64_t i, auto part) {
    F v = get<V>(x + i, part) * rstd;
    if (offset == 0) v = rounded<V, T>(v);
    put<V>(y + i, v * (get<V>(w + i, part) + shift), part);
  });
}

template <class V, class T>
void norm_row(const ops::RmsNormArgs& args, int64_t r) {
  using F = typename V::F;
  const int64_t n = args.x.dim(1);
  const T* x = row_of<T>(args.x, r);
  F squares = V::all(0);
  if (args.residual) {
    const T* residual = row_of<T>(args.residual, r);
    T* sum = row_of<T>(args.sum, r);
    sweep<V>(n, [&](int64_t i, auto part) {
      const F s = rounded<V, T>(get<V>(x + i, part) + get<V>(residual + i, part));
      put<V>(sum + i, s, part);
      squares = V::fma(s, s, squares);
    });
    x = sum;
  } else {
    sweep<V>(n, [&](int64_t i, auto part) {
      const F s = get<V>(x + i, part);
      squares = V::fma(s, s, squares);
    });
  }
  scale_by_norm<V, T>(x, V::sum(squares), args.weight.as<T>(), args.eps, args.offset, n, row_of<T>(args.y, r));
}

template <class V, class T>
float rstd_of_row(const T* x, int64_t n, float eps) {
  typename V::F squares = V::all(0);
  sweep<V>(n, [&](int64_t i, auto part) {
    const typename V::F s = get<V>(x + i, part);
    squares = V::fma(s, s, squares);
  });
  return 1 / std::sqrt(V::sum(squares) / static_cast<float>(n) + eps);
}

template <class V, class T>
void norm_backward_row(const ops::RmsNormBackwardArgs& args, int64_t r) {
  using F = typename V::F;
  const int64_t n = args.x.dim(1);
  const T *x = row_of<T>(args.x, r), *dy = row_of<T>(args.dy, r), *w = args.weight.as<T>();
  const F rstd = V::all(rstd_of_row<V>(x, n, args.eps)), offset = V::all(args.offset);
  F dots = V::all(0);
  sweep<V>(n, [&](int64_t i, auto part) {
    const F d = get<V>(dy + i, part) * (get<V>(w + i, part) + offset);
    dots = V::fma(d, get<V>(x + i, part) * rstd, dots);
  });
  const F mean = V::all(V::sum(dots) / static_cast<float>(n));
  T* dx = row_of<T>(args.dx, r);
  const T* add = args.dx_add ? row_of<T>(args.dx_add, r) : nullptr;
  sweep<V>(n, [&](int64_t i, auto part) {
    const F d = get<V>(dy + i, part) * (get<V>(w + i, part) + offset);
    F v = rstd * (d - get<V>(x + i, part) * rstd * mean);
    if (add) v += get<V>(add + i, part);
    put<V>(dx + i, v, part);
  });
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
  if constexpr (requires { V::sigmoid(x); })
    return V::sigmoid(x);
  else
    return V::all(1) / (V::all(1) + V::exp(-x));
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
  const int64_t n = args.gate.dim(1);
  for_rows(kernel, args.gate.dim(0), n, [&](int64_t r) {
    const T* gate = row_of<T>(args.gate, r);
    const T* up = args.up ? row_of<T>(args.up, r) : nullptr;
    T* y = row_of<T>(args.y, r);
    sweep<V>(n, [&](int64_t i, auto part) {
      typename V::F slope, v = activate<V, kActivation>(get<V>(gate + i, part), slope);
      if (up) v = v * get<V>(up + i, part);
      put<V>(y + i, v, part);
    });
  });
}

template <class V, class T, ops::Activation kActivation>
void glu_backward_rows(const ops::GluArgs& args, const KernelContext& kernel) {
  using F = typename V::F;
  const int64_t n = args.gate.dim(1);
  for_rows(kernel, args.gate.dim(0), n, [&](int64_t r) {
    const T *gate = row_of<T>(args.gate, r), *dy = row_of<T>(args.dy, r);
    const T* up = args.up ? row_of<T>(args.up, r) : nullptr;
    T* dgate = args.dgate ? row_of<T>(args.dgate, r) : nullptr;
    T* dup = args.dup ? row_of<T>(args.dup, r) : nullptr;
    sweep<V>(n, [&](int64_t i, auto part) {
      F slope;
      const F v = activate<V, kActivation>(get<V>(gate + i, part), slope), d = get<V>(dy + i, part);
      if (dup) put<V>(dup + i, v * d, part);
      if (!dgate) return;
      F g = slope * d;
      if (up) g = g * get<V>(up + i, part);
      put<V>(dgate + i, g, part);
    });
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

// ---- rope_append ----------------------------------------------------------------------------------------------------

constexpr int64_t kWidestHead = 512;

template <class V>
const char* SimdLevel<V>::decline(const ops::RopeAppendArgs& a, const KernelContext&) {
  if (a.cos.dtype != DType::kF32 || a.sin.dtype != DType::kF32) return "the table must be f32";
  if (a.q.dim(2) > kWidestHead) return "the heads are too wide";
  return decline_rows<V>({&a.q, &a.k, &a.v, &a.q_norm, &a.k_norm, &a.q_out, &a.k_pages, &a.v_pages});
}

// one head of a token: norm, where there is one, then rotation
template <class V, class T>
void turn_normed(const T* x, const View& norm, float eps, const float* cos, const float* sin, int64_t half, int64_t d,
                 T* y) {
  T normed[kWidestHead];
  if (norm) {
    typename V::F squares = V::all(0);
    sweep<V>(d, [&](int64_t i, auto part) {
      const typename V::F s = get<V>(x + i, part);
      squares = V::fma(s, s, squares);
    });
    scale_by_norm<V, T>(x, V::sum(squares), norm.as<T>(), eps, 0, d, normed);
    x = normed;
  }
  turn_head<V>(x, cos, sin, V::all(1), half, d, y);
}

template <class V>
void SimdLevel<V>::run(const ops::RopeAppendArgs& args, const KernelContext& kernel) {
  const int64_t q_heads = args.q.dim(1), kv_heads = args.k.dim(1), d = args.q.dim(2), half = args.cos.dim(1);
  const int64_t page = args.k_pages.dim(2);
  with_type(args.q.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto in_pages = [&](const View& pages, int64_t slot, int64_t head) {
      return pages.as<T>() + slot / page * pages.stride(0) + head * pages.stride(1) + slot % page * pages.stride(2);
    };
    for_rows(kernel, args.q.dim(0), (q_heads + 2 * kv_heads) * d, [&](int64_t t) {
      const float *cos = row_of<float>(args.cos, t), *sin = row_of<float>(args.sin, t);
      for (int64_t h = 0; h < q_heads; ++h)
        turn_normed<V, T>(row_of<T>(args.q, t) + h * args.q.stride(1), args.q_norm, args.eps, cos, sin, half, d,
                          row_of<T>(args.q_out, t) + h * args.q_out.stride(1));
      const int64_t slot = args.slots.as<int64_t>()[t * args.slots.stride(0)];
      if (slot < 0) return;
      PMETAL_ASSERT(slot / page < args.k_pages.dim(0), "slot {} of {} pages", slot, args.k_pages.dim(0));
      for (int64_t h = 0; h < kv_heads; ++h) {
        turn_normed<V, T>(row_of<T>(args.k, t) + h * args.k.stride(1), args.k_norm, args.eps, cos, sin, half, d,
                          in_pages(args.k_pages, slot, h));
        std::memcpy(in_pages(args.v_pages, slot, h), row_of<T>(args.v, t) + h * args.v.stride(1),
                    static_cast<size_t>(args.v.dim(2)) * sizeof(T));
      }
    });
  });
}

}  // namespace pmetal::cpu
