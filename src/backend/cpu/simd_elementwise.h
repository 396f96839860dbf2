// Elementwise kernels on vectors: binary, unary, AdamW and its norm, rows of tables, rows by index, KV append. Included
// by simd_avx512.cc and simd_avx2.cc after simd_rows.h.
#pragma once

namespace pmetal::cpu {
namespace {

// Views of one shape, cut into pieces of rows: contiguous ones are one row.
struct Pieces {
  int64_t rows, n, blocks, width;
  Pieces(int64_t r, int64_t columns) : rows(r), n(columns) {
    width = std::min<int64_t>(n, 8192);
    blocks = n > 0 ? (n + width - 1) / width : 0;
  }
  // body(row, first column, columns)
  template <class Body>
  void each(const KernelContext& kernel, Body&& body) const {
    kernel.threads->parallel_for(rows * blocks, grain_of(width), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        body(t / blocks, t % blocks * width, std::min(width, n - t % blocks * width));
    });
  }
};

inline constexpr int64_t kSquaresBlock = 4096, kSquaresLanes = 16;

template <class Body>
void with_types(DType a, DType b, Body&& body) {
  with_type(a, [&](auto x) { with_type(b, [&](auto y) { body(x, y); }); });
}
inline bool is_real(DType t) { return t == DType::kBF16 || t == DType::kF32; }
inline bool has_dense_rows(const View& v) { return v.rank == 0 || v.dim(-1) <= 1 || v.stride(-1) == 1; }

template <class V>
const char* decline_isa() {
  if (isa() >= V::kIsa) return nullptr;
  return no_level<V>();
}

template <class V, class A, class B, class Y, class Op>
void binary_rows(const ops::BinaryArgs& given, const KernelContext& kernel, Op&& op) {
  ops::BinaryArgs args = given;
  if (args.broadcast == 0 && is_contiguous(args.a) && is_contiguous(args.b) && is_contiguous(args.y)) {
    args.a = flattened(args.a);
    args.b = flattened(args.b);
    args.y = flattened(args.y);
  }
  const Rows a(args.a), b(args.b), y(args.y);
  Pieces(y.rows, y.n).each(kernel, [&](int64_t r, int64_t c, int64_t n) {
    const A* from = args.a.as<A>() + a.offset(r) + c;
    const B* other = args.broadcast == 2 ? args.b.as<B>() + r * args.b.stride(0)
                                         : args.b.as<B>() + (args.broadcast == 1 ? 0 : b.offset(r)) + c;
    Y* to = args.y.as<Y>() + y.offset(r) + c;
    if (args.broadcast == 2) {
      const typename V::F one = V::all(V::sum(V::load(other, 1)));
      sweep<V>(n, [&](int64_t i, auto part) {
        typename V::F v = op(get<V>(from + i, part), one);
        if (args.accumulate) v += get<V>(to + i, part);
        put<V>(to + i, v, part);
      });
    } else {
      sweep<V>(n, [&](int64_t i, auto part) {
        typename V::F v = op(get<V>(from + i, part), get<V>(other + i, part));
        if (args.accumulate) v += get<V>(to + i, part);
        put<V>(to + i, v, part);
      });
    }
  });
}

template <class V, class A, class B, class Y>
void binary_typed(const ops::BinaryArgs& args, const KernelContext& kernel) {
  using F = typename V::F;
  switch (args.op) {
    case ops::kBinaryAdd: return binary_rows<V, A, B, Y>(args, kernel, [](F a, F b) { return a + b; });
    case ops::kBinarySub: return binary_rows<V, A, B, Y>(args, kernel, [](F a, F b) { return a - b; });
    case ops::kBinaryDiv: return binary_rows<V, A, B, Y>(args, kernel, [](F a, F b) { return a / b; });
    default: return binary_rows<V, A, B, Y>(args, kernel, [](F a, F b) { return a * b; });
  }
}

// y[r] = x[r, index[r]], or y[r, index[r]] = x[r] with zeros beside it, or += it
inline void index_columns(const ops::IndexArgs& args, const KernelContext& kernel) {
  with_type(args.y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const bool gather = args.op == ops::kGatherColumns;
    const View& wide = gather ? args.x : args.y;
    const int64_t n = wide.dim(1);
    for_rows(kernel, wide.dim(0), gather ? 1 : n, [&](int64_t r) {
      const int64_t at = args.index.as<int32_t>()[r * args.index.stride(0)];
      PMETAL_ASSERT(at >= 0 && at < n, "index {} of {}", at, n);
      T* row = row_of<T>(wide, r);
      if (gather) {
        *row_of<T>(args.y, r) = row[at * wide.stride(1)];
        return;
      }
      const T value = *row_of<T>(args.x, r);
      T& to = row[at * wide.stride(1)];
      if (args.accumulate) {
        to = narrow_to<T>(widen<float>(to) + widen<float>(value));
        return;
      }
      for (int64_t c = 0; c < n; ++c) row[c * wide.stride(1)] = T{};
      to = value;
    });
  });
}

inline bool is_vector_function(int op) {
  using ops::Unary;
  for (const Unary u : {Unary::kNeg, Unary::kExp, Unary::kSigmoid, Unary::kSqrt, Unary::kSquare, Unary::kAbs,
                        Unary::kRelu, Unary::kSilu, Unary::kReciprocal})
    if (op == static_cast<int>(u)) return true;
  return op >= ops::kUnaryAffine;
}

// body(f) with what `op` does to a vector; the formulas of unary.cc
template <class V, class Body>
void with_function(int op, typename V::F a, typename V::F b, Body&& body) {
  using F = typename V::F;
  using ops::Unary;
  const F one = V::all(1), zero = V::all(0), minus = V::all(-1);
  switch (op) {
    case static_cast<int>(Unary::kNeg): return body([=](F x) { return x * minus; });
    case static_cast<int>(Unary::kExp): return body([](F x) { return V::exp(x); });
    case static_cast<int>(Unary::kSigmoid): return body([](F x) { return sigmoid<V>(x); });
    case static_cast<int>(Unary::kSqrt): return body([](F x) { return V::sqrt(x); });
    case static_cast<int>(Unary::kSquare): return body([](F x) { return x * x; });
    case static_cast<int>(Unary::kAbs): return body([=](F x) { return V::max(x, x * minus); });
    case static_cast<int>(Unary::kRelu): return body([=](F x) { return V::max(x, zero); });
    case static_cast<int>(Unary::kSilu): return body([](F x) { return x * sigmoid<V>(x); });
    case static_cast<int>(Unary::kReciprocal): return body([=](F x) { return one / x; });
    case ops::kUnaryAffine: return body([=](F x) { return V::fma(x, a, b); });
    case ops::kUnaryClamp: return body([=](F x) { return minus * V::max(minus * V::max(x, a), minus * b); });
    default: return body([](F x) { return x; });  // copy
  }
}

}  // namespace

template <class V>
const char* SimdLevel<V>::decline(const ops::BinaryArgs& a, const KernelContext&) {
  if (const char* why = decline_isa<V>()) return why;
  if (a.op != ops::kBinaryAdd && a.op != ops::kBinarySub && a.op != ops::kBinaryMul && a.op != ops::kBinaryDiv)
    return "takes add, sub, mul and div alone";
  if (!is_real(a.a.dtype) || !is_real(a.b.dtype) || !is_real(a.y.dtype)) return "takes bf16 and f32 alone";
  if (a.a.dtype != a.y.dtype) return "the first operand and the result must have one type";
  if (!has_dense_rows(a.a) || !has_dense_rows(a.y) || (a.broadcast != 2 && !has_dense_rows(a.b)))
    return "rows must be dense";
  return nullptr;
}
template <class V>
void SimdLevel<V>::run(const ops::BinaryArgs& args, const KernelContext& kernel) {
  const bool narrow = args.a.dtype == DType::kBF16;
  if (args.b.dtype == DType::kBF16)
    narrow ? binary_typed<V, BF16, BF16, BF16>(args, kernel) : binary_typed<V, float, BF16, float>(args, kernel);
  else
    narrow ? binary_typed<V, BF16, float, BF16>(args, kernel) : binary_typed<V, float, float, float>(args, kernel);
}

template <class V>
const char* SimdLevel<V>::decline(const ops::UnaryArgs& a, const KernelContext&) {
  if (const char* why = decline_isa<V>()) return why;
  if (!is_vector_function(a.op)) return "a function without vectors";
  const bool fill = a.op == ops::kUnaryFill;
  if (!has_dense_rows(a.y) || (!fill && !has_dense_rows(a.x))) return "rows must be dense";
  if (a.op == ops::kUnaryCopy && a.x.dtype == a.y.dtype) return nullptr;  // bytes
  if (!is_real(a.y.dtype) || (!fill && !is_real(a.x.dtype))) return "takes bf16 and f32 alone";
  return nullptr;
}
template <class V>
void SimdLevel<V>::run(const ops::UnaryArgs& given, const KernelContext& kernel) {
  ops::UnaryArgs args = given;
  const bool fill = args.op == ops::kUnaryFill;
  if (is_contiguous(args.y) && (fill || is_contiguous(args.x))) {
    args.y = flattened(args.y);
    if (!fill) args.x = flattened(args.x);
  }
  const Rows x(fill ? args.y : args.x), y(args.y);
  const Pieces pieces(y.rows, y.n);
  if (args.op == ops::kUnaryCopy && args.x.dtype == args.y.dtype) {
    const int64_t size = size_of(args.y.dtype);
    return pieces.each(kernel, [&](int64_t r, int64_t c, int64_t n) {
      std::memcpy(args.y.as<char>() + (y.offset(r) + c) * size, args.x.as<char>() + (x.offset(r) + c) * size,
                  static_cast<size_t>(n * size));
    });
  }
  const typename V::F a = V::all(args.a), b = V::all(args.b);
  with_type(args.y.dtype, [&](auto to_type) {
    using Y = decltype(to_type);
    if (fill) {
      const typename V::F value = V::all(static_cast<float>(static_cast<double>(args.a) + static_cast<double>(args.b)));
      return pieces.each(kernel, [&](int64_t r, int64_t c, int64_t n) {
        Y* to = args.y.as<Y>() + y.offset(r) + c;
        sweep<V>(n, [&](int64_t i, auto part) { put<V>(to + i, value, part); });
      });
    }
    with_type(args.x.dtype, [&](auto from_type) {
      using X = decltype(from_type);
      with_function<V>(args.op, a, b, [&](auto&& function) {
        pieces.each(kernel, [&](int64_t r, int64_t c, int64_t n) {
          const X* from = args.x.as<X>() + x.offset(r) + c;
          Y* to = args.y.as<Y>() + y.offset(r) + c;
          sweep<V>(n, [&](int64_t i, auto part) { put<V>(to + i, function(get<V>(from + i, part)), part); });
        });
      });
    });
  });
}

// the formula of optim.cc
template <class V>
const char* SimdLevel<V>::decline(const ops::AdamWArgs& a, const KernelContext&) {
  if (a.weight && !is_real(a.weight.dtype)) return "the weight must be bf16 or f32";
  return decline_isa<V>();
}
template <class V>
void SimdLevel<V>::run(const ops::AdamWArgs& args, const KernelContext& kernel) {
  using F = typename V::F;
  const double step = static_cast<double>(args.step), lr = static_cast<double>(args.lr);
  const double beta1 = static_cast<double>(args.beta1), beta2 = static_cast<double>(args.beta2);
  const F decay = V::all(static_cast<float>(1.0 - lr * static_cast<double>(args.weight_decay)));
  const F step_size = V::all(static_cast<float>(lr / (1.0 - std::pow(beta1, step))));
  const F root_scale = V::all(static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(beta2, step))));
  const F b1 = V::all(args.beta1), b2 = V::all(args.beta2), eps = V::all(args.eps), scale = V::all(args.grad_scale);
  const F c1 = V::all(static_cast<float>(1.0 - beta1)), c2 = V::all(static_cast<float>(1.0 - beta2));
  const bool narrow = args.weight && args.weight.dtype == DType::kBF16, wide = args.weight && !narrow;
  Pieces(1, args.master.numel()).each(kernel, [&](int64_t, int64_t c, int64_t n) {
    float *w = args.master.as<float>() + c, *m = args.m.as<float>() + c, *v = args.v.as<float>() + c;
    const float* g = args.grad.as<float>() + c;
    BF16* w16 = narrow ? args.weight.as<BF16>() + c : nullptr;
    float* w32 = wide ? args.weight.as<float>() + c : nullptr;
    sweep<V>(n, [&](int64_t i, auto part) {
      const F gradient = get<V>(g + i, part) * scale;
      const F first = V::fma(b1, get<V>(m + i, part), c1 * gradient);
      const F second = V::fma(b2, get<V>(v + i, part), c2 * gradient * gradient);
      const F updated = get<V>(w + i, part) * decay - step_size * first / (V::sqrt(second) * root_scale + eps);
      put<V>(m + i, first, part);
      put<V>(v + i, second, part);
      put<V>(w + i, updated, part);
      if (w16) put<V>(w16 + i, updated, part);
      if (w32) put<V>(w32 + i, updated, part);
    });
  });
}

// blocks of 4096 in f64, added in order
template <class V>
const char* SimdLevel<V>::decline(const ops::SumSquaresArgs& a, const KernelContext&) {
  return a.x.dtype == DType::kF32 ? decline_isa<V>() : "takes f32 alone";
}
template <class V>
int64_t SimdLevel<V>::workspace(const ops::SumSquaresArgs& args, const KernelContext&) {
  return (args.x.numel() + kSquaresBlock - 1) / kSquaresBlock * 8;
}
template <class V>
void SimdLevel<V>::run(const ops::SumSquaresArgs& args, const KernelContext& kernel) {
  const int64_t n = args.x.numel(), blocks = (n + kSquaresBlock - 1) / kSquaresBlock;
  double* partial = static_cast<double*>(kernel.workspace);
  kernel.threads->parallel_for(blocks, 16, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const float* x = args.x.as<float>() + b * kSquaresBlock;
      double sums[kSquaresLanes] = {};
      const int64_t width = std::min(kSquaresBlock, n - b * kSquaresBlock),
                    whole = width / kSquaresLanes * kSquaresLanes;
      for (int64_t i = 0; i < whole; i += kSquaresLanes)
        for (int64_t l = 0; l < kSquaresLanes; ++l)
          sums[l] += static_cast<double>(x[i + l]) * static_cast<double>(x[i + l]);
      for (int64_t i = whole; i < width; ++i) sums[i - whole] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      double sum = 0;
      for (const double s : sums) sum += s;
      partial[b] = sum;
    }
  });
  double sum = 0;
  for (int64_t b = 0; b < blocks; ++b) sum += partial[b];
  *args.out.as<double>() = sum;
}

template <class V>
const char* SimdLevel<V>::decline(const ops::EmbeddingArgs& a, const KernelContext&) {
  if (const char* why = decline_isa<V>()) return why;
  if (!is_real(a.y.dtype) || (a.dense && !is_real(a.dense.dtype))) return "takes bf16 and f32 alone";
  return has_dense_rows(a.y) && (!a.dense || has_dense_rows(a.dense)) ? nullptr : "rows must be dense";
}
template <class V>
int64_t SimdLevel<V>::workspace(const ops::EmbeddingArgs& args, const KernelContext& kernel) {
  return args.weight ? workers_of(kernel) * args.weight->in * 4 : 0;
}
template <class V>
void SimdLevel<V>::run(const ops::EmbeddingArgs& args, const KernelContext& kernel) {
  const int64_t n = args.y.dim(1), vocabulary = args.weight ? args.weight->out : args.dense.dim(0);
  const typename V::F scale = V::all(args.scale);
  with_type(args.y.dtype, [&](auto y_type) {
    using Y = decltype(y_type);
    const auto put_row = [&](const auto* from, int64_t t) {
      Y* to = row_of<Y>(args.y, t);
      if (args.scale == 1)
        sweep<V>(n, [&](int64_t i, auto part) { put<V>(to + i, get<V>(from + i, part), part); });
      else
        sweep<V>(n, [&](int64_t i, auto part) { put<V>(to + i, get<V>(from + i, part) * scale, part); });
    };
    for_items(kernel, args.y.dim(0), [&](int64_t t, int worker) {
      const int64_t id = args.ids.as<int32_t>()[t * args.ids.stride(0)];
      PMETAL_ASSERT(id >= 0 && id < vocabulary, "token id {} of a vocabulary of {}", id, vocabulary);
      if (args.weight) {
        float* row = static_cast<float*>(kernel.workspace) + worker * n;
        args.weight->format->decode_rows(*args.weight, id, id + 1, row);
        return put_row(row, t);
      }
      with_type(args.dense.dtype, [&](auto from) { put_row(row_of<decltype(from)>(args.dense, id), t); });
    });
  });
}

template <class V>
const char* SimdLevel<V>::decline(const ops::IndexArgs& a, const KernelContext&) {
  if (const char* why = decline_isa<V>()) return why;
  if (a.op != ops::kGatherRows && a.op != ops::kScatterRows) {  // one element of each row: nothing for vectors to do
    return is_real(a.x.dtype) && a.x.dtype == a.y.dtype ? nullptr : "takes bf16 or f32 alone";
  }
  if (a.accumulate && (!is_real(a.x.dtype) || !is_real(a.y.dtype))) return "adds bf16 and f32 alone";
  if (!a.accumulate && a.x.dtype != a.y.dtype) return "copies one type alone";
  return has_dense_rows(a.x) && has_dense_rows(a.y) ? nullptr : "rows must be dense";
}
template <class V>
void SimdLevel<V>::run(const ops::IndexArgs& args, const KernelContext& kernel) {
  const View &x = args.x, &y = args.y;
  const int64_t size = size_of(y.dtype), n = y.rank > 1 ? y.dim(1) : 1;
  const bool gather = args.op == ops::kGatherRows;
  if (y.numel() == 0) return;
  const auto at = [&](int64_t i, int64_t bound) {
    const int64_t row = args.index.as<int32_t>()[i * args.index.stride(0)];
    PMETAL_ASSERT(row >= 0 && row < bound, "index {} of {}", row, bound);
    return row;
  };
  if (args.op == ops::kGatherColumns || args.op == ops::kScatterColumns) return index_columns(args, kernel);
  const size_t bytes = static_cast<size_t>(n * size);
  if (args.accumulate)
    return with_types(x.dtype, y.dtype, [&](auto x_zero, auto y_zero) {
      using X = decltype(x_zero);
      using Y = decltype(y_zero);
      const auto add = [&](int64_t to_row, int64_t from_row, int64_t first, int64_t width) {
        Y* to = row_of<Y>(y, to_row) + first;
        const X* from = row_of<X>(x, from_row) + first;
        sweep<V>(width,
                 [&](int64_t i, auto part) { put<V>(to + i, get<V>(to + i, part) + get<V>(from + i, part), part); });
      };
      if (gather) return for_rows(kernel, y.dim(0), n, [&](int64_t i) { add(i, at(i, x.dim(0)), 0, n); });
      // columns are cut among threads: rows that meet are added in order
      kernel.threads->parallel_for((n + 127) / 128, 1, [&](int64_t begin, int64_t end) {
        const int64_t first = begin * 128, width = std::min(end * 128, n) - first;
        for (int64_t i = 0; i < x.dim(0); ++i) add(at(i, y.dim(0)), i, first, width);
      });
    });
  if (gather)
    return for_rows(kernel, y.dim(0), n, [&](int64_t i) {
      std::memcpy(y.as<char>() + i * y.stride(0) * size, x.as<char>() + at(i, x.dim(0)) * x.stride(0) * size, bytes);
    });
  for_rows(kernel, y.dim(0), n, [&](int64_t r) { std::memset(y.as<char>() + r * y.stride(0) * size, 0, bytes); });
  for (int64_t i = 0; i < x.dim(0); ++i)  // in order: where indices meet, the last one stays
    std::memcpy(y.as<char>() + at(i, y.dim(0)) * y.stride(0) * size, x.as<char>() + i * x.stride(0) * size, bytes);
}

template <class V>
const char* SimdLevel<V>::decline(const ops::KvAppendArgs& a, const KernelContext&) {
  if (const char* why = decline_isa<V>()) return why;
  if (a.k.dtype != a.k_pages.dtype || a.v.dtype != a.v_pages.dtype) return "takes one type alone";
  for (const View* v : {&a.k, &a.v, &a.k_pages, &a.v_pages})
    if (!has_dense_rows(*v)) return "rows must be dense";
  return nullptr;
}
template <class V>
void SimdLevel<V>::run(const ops::KvAppendArgs& args, const KernelContext& kernel) {
  const auto put_row = [](const View& rows, const View& pages, int64_t token, int64_t head, int64_t slot) {
    const int64_t size = size_of(rows.dtype), page = pages.dim(2);
    PMETAL_ASSERT(slot / page < pages.dim(0), "slot {} of {} pages", slot, pages.dim(0));
    std::memcpy(pages.as<char>() +
                    (slot / page * pages.stride(0) + head * pages.stride(1) + slot % page * pages.stride(2)) * size,
                rows.as<char>() + (token * rows.stride(0) + head * rows.stride(1)) * size,
                static_cast<size_t>(rows.dim(2) * size));
  };
  for_rows(kernel, args.k.dim(0), args.k.dim(1) * args.k.dim(2), [&](int64_t t) {
    const int64_t slot = args.slots.as<int64_t>()[t * args.slots.stride(0)];
    if (slot < 0) return;
    for (int64_t h = 0; h < args.k.dim(1); ++h) {
      put_row(args.k, args.k_pages, t, h, slot);
      put_row(args.v, args.v_pages, t, h, slot);
    }
  });
}

}  // namespace pmetal::cpu
