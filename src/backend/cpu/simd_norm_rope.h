// norm_rope, its derivative and rope_append on vectors: a head stays in registers from its norm to its turn. Values are
// rounded where the separate ops round. Included by simd_*.cc after simd_rows.h.
#pragma once

namespace pmetal::cpu {
namespace {

// What a token's heads share, in the order in which they are fetched; P pairs of vectors are half a head.
template <class V, class T, int P>
struct Turn {
  using F = typename V::F;
  static constexpr int64_t kPair = 2 * V::kWidth, kHalf = P * kPair;
  alignas(64) float cos[kHalf], sin[kHalf];

  Turn(const float* c, const float* s) {
    for (int p = 0; p < P; ++p) {
      F v[2];
      fetch_beside<V, T>(c + p * kPair, v);
      for (int k = 0; k < 2; ++k) V::store(cos + p * kPair + k * V::kWidth, v[k]);
      fetch_beside<V, T>(s + p * kPair, v);
      for (int k = 0; k < 2; ++k) V::store(sin + p * kPair + k * V::kWidth, v[k]);
    }
  }
};

template <class V, class T, int P>
PMETAL_INLINE float rstd_of_head(const typename V::F (&x)[2 * P][2], float eps) {
  typename V::F squares[2] = {V::all(0), V::all(0)};
  for (int p = 0; p < 2 * P; ++p)
    for (int k = 0; k < 2; ++k) squares[k] = V::fma(x[p][k], x[p][k], squares[k]);
  constexpr auto n = static_cast<float>(4 * P * V::kWidth);
  return 1 / std::sqrt(V::sum(squares[0] + squares[1]) / n + eps);
}

// the lines of a head of the next token
template <class T>
PMETAL_INLINE void prefetch_head(const T* p, int64_t d) {
  for (int64_t i = 0; i < d; i += 64 / static_cast<int64_t>(sizeof(T)))
    _mm_prefetch(reinterpret_cast<const char*>(p + i), _MM_HINT_T0);
}

template <class V, class T, int P>
PMETAL_INLINE void norm_rope_head(const T* from, const T* weight, float eps, const Turn<V, T, P>& turn, T* to) {
  using F = typename V::F;
  using R = Turn<V, T, P>;
  F x[2 * P][2];
#pragma GCC unroll 8
  for (int p = 0; p < 2 * P; ++p) fetch<V>(from + p * R::kPair, x[p], Both{});
  const F rstd = V::all(rstd_of_head<V, T, P>(x, eps));
#pragma GCC unroll 8
  for (int p = 0; p < 2 * P; ++p) {
    F w[2];
    fetch<V>(weight + p * R::kPair, w, Both{});
    for (int k = 0; k < 2; ++k) x[p][k] = x[p][k] * rstd;
    round_all<V, T>(x[p], Both{});
    for (int k = 0; k < 2; ++k) x[p][k] = x[p][k] * w[k];
    round_all<V, T>(x[p], Both{});
  }
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) {
    F a[2], b[2];
    for (int k = 0; k < 2; ++k) {
      const int64_t at = p * R::kPair + k * V::kWidth;
      const F c = V::load(turn.cos + at), s = V::load(turn.sin + at);
      a[k] = V::fma(x[p][k], c, -(x[P + p][k] * s));
      b[k] = V::fma(x[P + p][k], c, x[p][k] * s);
    }
    deliver<V>(to + p * R::kPair, a, Both{});
    deliver<V>(to + R::kHalf + p * R::kPair, b, Both{});
  }
}

// turns dy back and takes it through the norm, as norm_backward_row does
template <class V, class T, int P>
PMETAL_INLINE void norm_rope_backward_head(const T* from, const T* dy, const T* weight, float eps,
                                           const Turn<V, T, P>& turn, T* to) {
  using F = typename V::F;
  using R = Turn<V, T, P>;
  F d[2 * P][2];
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) {
    F a[2], b[2];
    fetch<V>(dy + p * R::kPair, a, Both{});
    fetch<V>(dy + R::kHalf + p * R::kPair, b, Both{});
    for (int k = 0; k < 2; ++k) {
      const int64_t at = p * R::kPair + k * V::kWidth;
      const F c = V::load(turn.cos + at), s = V::load(turn.sin + at);
      d[p][k] = V::fma(a[k], c, b[k] * s);
      d[P + p][k] = V::fma(b[k], c, -(a[k] * s));
    }
    round_all<V, T>(d[p], Both{});
    round_all<V, T>(d[P + p], Both{});
  }
  F squares[2] = {V::all(0), V::all(0)}, dots[2] = {V::all(0), V::all(0)};
#pragma GCC unroll 8
  for (int p = 0; p < 2 * P; ++p) {
    F x[2], w[2];
    fetch<V>(from + p * R::kPair, x, Both{});
    fetch<V>(weight + p * R::kPair, w, Both{});
    for (int k = 0; k < 2; ++k) {
      d[p][k] = d[p][k] * w[k];
      squares[k] = V::fma(x[k], x[k], squares[k]);
      dots[k] = V::fma(d[p][k], x[k], dots[k]);
    }
  }
  constexpr auto n = static_cast<float>(2 * R::kHalf);
  const float rstd = 1 / std::sqrt(V::sum(squares[0] + squares[1]) / n + eps);
  const F factor = V::all(rstd), back = V::all(-rstd * rstd * rstd * (V::sum(dots[0] + dots[1]) / n));
#pragma GCC unroll 8
  for (int p = 0; p < 2 * P; ++p) {
    F x[2];
    fetch<V>(from + p * R::kPair, x, Both{});
    for (int k = 0; k < 2; ++k) x[k] = V::fma(x[k], back, factor * d[p][k]);
    deliver<V>(to + p * R::kPair, x, Both{});
  }
}

// body(P) where a head is 4 P vectors
template <class V, class Body>
bool with_head(int64_t d, Body&& body) {
  switch (d / V::kWidth) {
    case 4: return body(std::integral_constant<int, 1>{}), true;
    case 8: return body(std::integral_constant<int, 2>{}), true;
    case 16: return body(std::integral_constant<int, 4>{}), true;
    default: return false;
  }
}
template <class V, class Args>
const char* decline_norm_rope(const Args& a) {
  const int64_t d = a.x.dim(2);
  if (d % V::kWidth != 0 || !with_head<V>(d, [](auto) {})) return "heads of other than 4, 8 or 16 vectors";
  if (2 * a.cos.dim(1) != d) return "a part of the head turns";
  if (a.cos.dtype != DType::kF32 || a.sin.dtype != DType::kF32 || a.cos.stride(1) != 1 || a.sin.stride(1) != 1)
    return "the table must be dense f32";
  return nullptr;
}

}  // namespace

template <class V>
const char* SimdLevel<V>::decline(const ops::NormRopeArgs& a, const KernelContext&) {
  if (const char* why = decline_rows<V>({&a.x, &a.weight, &a.y})) return why;
  return decline_norm_rope<V>(a);
}
template <class V>
void SimdLevel<V>::run(const ops::NormRopeArgs& args, const KernelContext& kernel) {
  const int64_t tokens = args.x.dim(0), heads = args.x.dim(1), d = args.x.dim(2);
  with_type(args.x.dtype, [&](auto zero) {
    with_head<V>(d, [&](auto pairs) {
      using T = decltype(zero);
      constexpr int P = decltype(pairs)::value;
      for_rows(kernel, tokens, heads * d, [&](int64_t t) {
        const Turn<V, T, P> turn(row_of<float>(args.cos, t), row_of<float>(args.sin, t));
        const T *x = row_of<T>(args.x, t), *next = row_of<T>(args.x, std::min(t + 1, tokens - 1));
        T* y = row_of<T>(args.y, t);
        for (int64_t h = 0; h < heads; ++h) {
          prefetch_head(next + h * args.x.stride(1), d);
          norm_rope_head<V, T, P>(x + h * args.x.stride(1), args.weight.as<T>(), args.eps, turn,
                                  y + h * args.y.stride(1));
        }
      });
    });
  });
}

template <class V>
const char* SimdLevel<V>::decline(const ops::NormRopeBackwardArgs& a, const KernelContext&) {
  if (a.dweight) return "gives no gradient to the weight";
  if (const char* why = decline_rows<V>({&a.x, &a.weight, &a.dy, &a.dx})) return why;
  return decline_norm_rope<V>(a);
}
template <class V>
void SimdLevel<V>::run(const ops::NormRopeBackwardArgs& args, const KernelContext& kernel) {
  if (!args.dx) return;
  const int64_t tokens = args.x.dim(0), heads = args.x.dim(1), d = args.x.dim(2);
  with_type(args.x.dtype, [&](auto zero) {
    with_head<V>(d, [&](auto pairs) {
      using T = decltype(zero);
      constexpr int P = decltype(pairs)::value;
      for_rows(kernel, tokens, heads * d, [&](int64_t t) {
        const Turn<V, T, P> turn(row_of<float>(args.cos, t), row_of<float>(args.sin, t));
        const int64_t after = std::min(t + 1, tokens - 1);
        for (int64_t h = 0; h < heads; ++h) {
          prefetch_head(row_of<T>(args.x, after) + h * args.x.stride(1), d);
          prefetch_head(row_of<T>(args.dy, after) + h * args.dy.stride(1), d);
          norm_rope_backward_head<V, T, P>(row_of<T>(args.x, t) + h * args.x.stride(1),
                                           row_of<T>(args.dy, t) + h * args.dy.stride(1), args.weight.as<T>(), args.eps,
                                           turn, row_of<T>(args.dx, t) + h * args.dx.stride(1));
        }
      });
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
    typename V::F squares[2] = {V::all(0), V::all(0)};
    add_squares<V>(x, d, squares, [](int64_t) {});
    scale_by_norm<V, T>(x, V::sum(squares[0] + squares[1]), norm.as<T>(), eps, 0, d, normed);
    x = normed;
  }
  turn_head<V>(x, cos, sin, V::all(1), half, d, y);
}

// the heads of a token: turn(x, norm, y) for each
template <class V, class T, class Body>
void with_turn(const ops::RopeAppendArgs& args, int64_t t, Body&& body) {
  const float *cos = row_of<float>(args.cos, t), *sin = row_of<float>(args.sin, t);
  const int64_t d = args.q.dim(2), half = args.cos.dim(1);
  const bool is_whole =
      args.q_norm && args.k_norm && 2 * half == d && d % V::kWidth == 0 && with_head<V>(d, [&](auto pairs) {
        constexpr int P = decltype(pairs)::value;
        const Turn<V, T, P> turn(cos, sin);
        body([&](const T* x, const View& norm, T* y) { norm_rope_head<V, T, P>(x, norm.as<T>(), args.eps, turn, y); });
      });
  if (!is_whole)
    body([&](const T* x, const View& norm, T* y) { turn_normed<V, T>(x, norm, args.eps, cos, sin, half, d, y); });
}

template <class V>
void SimdLevel<V>::run(const ops::RopeAppendArgs& args, const KernelContext& kernel) {
  const int64_t tokens = args.q.dim(0), q_heads = args.q.dim(1), kv_heads = args.k.dim(1), d = args.q.dim(2);
  const int64_t page = args.k_pages.dim(2), d_v = args.v.dim(2);
  with_type(args.q.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto in_pages = [&](const View& pages, int64_t slot, int64_t head) {
      return pages.as<T>() + slot / page * pages.stride(0) + head * pages.stride(1) + slot % page * pages.stride(2);
    };
    for_rows(kernel, tokens, (q_heads + 2 * kv_heads) * d, [&](int64_t t) {
      const int64_t slot = args.slots.as<int64_t>()[t * args.slots.stride(0)], after = std::min(t + 1, tokens - 1);
      PMETAL_ASSERT(slot / page < args.k_pages.dim(0), "slot {} of {} pages", slot, args.k_pages.dim(0));
      const auto head = [&](const View& v, int64_t row, int64_t h) { return row_of<T>(v, row) + h * v.stride(1); };
      with_turn<V, T>(args, t, [&](auto turn) {
        for (int64_t h = 0; h < q_heads; ++h) {
          prefetch_head(head(args.q, after, h), d);
          turn(head(args.q, t, h), args.q_norm, head(args.q_out, t, h));
        }
        for (int64_t h = 0; slot >= 0 && h < kv_heads; ++h) {
          prefetch_head(head(args.k, after, h), d);
          prefetch_head(head(args.v, after, h), d_v);
          turn(head(args.k, t, h), args.k_norm, in_pages(args.k_pages, slot, h));
          std::memcpy(in_pages(args.v_pages, slot, h), head(args.v, t, h), static_cast<size_t>(d_v) * sizeof(T));
        }
      });
    });
  });
}

}  // namespace pmetal::cpu
