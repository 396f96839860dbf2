// Shared by the plain CPU kernels. A kernel is written once per accumulator type A (f32, or f64 for f64 tensors);
// element types are met when a block of a row is loaded or stored. Sums run in a fixed number of lanes, so their
// order depends on the length alone. Rows are cut among threads, never a sum.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "base/dtype.h"
#include "base/error.h"
#include "base/threads.h"
#include "tensor/kernel.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {

inline constexpr int64_t kBlock = 1024;  // elements that a kernel converts at a time, on its stack

inline bool is_double(DType dtype) { return dtype == DType::kF64; }

template <class A, class T>
inline A widen(T v) {
  if constexpr (std::is_same_v<T, BF16>) {
    return static_cast<A>(to_f32(v));
  } else if constexpr (std::is_same_v<T, F16>) {
    return static_cast<A>(_cvtsh_ss(v.bits));
  } else {
    return static_cast<A>(v);
  }
}

template <class T, class A>
inline T narrow_to(A v) {
  if constexpr (std::is_same_v<T, BF16>) {
    const uint32_t u = std::bit_cast<uint32_t>(static_cast<float>(v));
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1)) >> 16;
    const uint32_t nan = (u >> 16) | 0x40;
    return {static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded)};
  } else if constexpr (std::is_same_v<T, F16>) {
    return {static_cast<uint16_t>(_cvtss_sh(static_cast<float>(v), _MM_FROUND_TO_NEAREST_INT))};
  } else {
    return static_cast<T>(v);
  }
}

template <class A, class T>
inline void load_as(const void* data, int64_t offset, int64_t stride, int64_t n, A* to) {
  const T* p = static_cast<const T*>(data) + offset;
  if (stride == 1)
    for (int64_t i = 0; i < n; ++i) to[i] = widen<A>(p[i]);
  else
    for (int64_t i = 0; i < n; ++i) to[i] = widen<A>(p[i * stride]);
}

template <class A, class T>
inline void store_as(void* data, int64_t offset, int64_t stride, int64_t n, const A* from) {
  T* p = static_cast<T*>(data) + offset;
  if (stride == 1)
    for (int64_t i = 0; i < n; ++i) p[i] = narrow_to<T>(from[i]);
  else
    for (int64_t i = 0; i < n; ++i) p[i * stride] = narrow_to<T>(from[i]);
}

// n elements of v, `stride` apart, from element `offset` on
template <class A>
void load(const View& v, int64_t offset, int64_t stride, int64_t n, A* to) {
  switch (v.dtype) {
    case DType::kF32: return load_as<A, float>(v.data, offset, stride, n, to);
    case DType::kBF16: return load_as<A, BF16>(v.data, offset, stride, n, to);
    case DType::kF16: return load_as<A, F16>(v.data, offset, stride, n, to);
    case DType::kF64: return load_as<A, double>(v.data, offset, stride, n, to);
    case DType::kI32: return load_as<A, int32_t>(v.data, offset, stride, n, to);
    case DType::kI64: return load_as<A, int64_t>(v.data, offset, stride, n, to);
    case DType::kU8:
    case DType::kBool: return load_as<A, uint8_t>(v.data, offset, stride, n, to);
    default: PMETAL_ASSERT(false, "load of {}", name_of(v.dtype));
  }
}

template <class A>
void store(const View& v, int64_t offset, int64_t stride, int64_t n, const A* from) {
  switch (v.dtype) {
    case DType::kF32: return store_as<A, float>(v.data, offset, stride, n, from);
    case DType::kBF16: return store_as<A, BF16>(v.data, offset, stride, n, from);
    case DType::kF16: return store_as<A, F16>(v.data, offset, stride, n, from);
    case DType::kF64: return store_as<A, double>(v.data, offset, stride, n, from);
    case DType::kI32: return store_as<A, int32_t>(v.data, offset, stride, n, from);
    case DType::kI64: return store_as<A, int64_t>(v.data, offset, stride, n, from);
    case DType::kU8:
    case DType::kBool: return store_as<A, uint8_t>(v.data, offset, stride, n, from);
    default: PMETAL_ASSERT(false, "store of {}", name_of(v.dtype));
  }
}

// The same elements as A: in place when they are A side by side, else converted into `scratch`.
template <class A>
inline const A* read(const View& v, int64_t offset, int64_t stride, int64_t n, A* scratch) {
  if (stride == 1 && v.dtype == (std::is_same_v<A, double> ? DType::kF64 : DType::kF32))
    return static_cast<const A*>(v.data) + offset;
  load(v, offset, stride, n, scratch);
  return scratch;
}

// v rounded to `dtype` and back
template <class A>
inline void round_through(DType dtype, A* values, int64_t n) {
  switch (dtype) {
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i) values[i] = widen<A>(narrow_to<BF16>(values[i]));
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) values[i] = widen<A>(narrow_to<F16>(values[i]));
      return;
    default: return;
  }
}

// One AVX2 register of A. (Wider vector types, or vector types made inside templates, are lowered to scalars by
// gcc 12.)
template <class A>
struct Lanes;
template <>
struct Lanes<float> {
  static constexpr int64_t kCount = 8;
  __m256 v{};
  static Lanes load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Lanes all(float x) { return {_mm256_set1_ps(x)}; }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  void add_product(Lanes a, Lanes b) { v = _mm256_fmadd_ps(a.v, b.v, v); }
  void add(Lanes a) { v = _mm256_add_ps(v, a.v); }
};
template <>
struct Lanes<double> {
  static constexpr int64_t kCount = 4;
  __m256d v{};
  static Lanes load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static Lanes all(double x) { return {_mm256_set1_pd(x)}; }
  void store(double* p) const { _mm256_storeu_pd(p, v); }
  void add_product(Lanes a, Lanes b) { v = _mm256_fmadd_pd(a.v, b.v, v); }
  void add(Lanes a) { v = _mm256_add_pd(v, a.v); }
};

inline constexpr int kChains = 4;  // independent sums of Lanes, which hide the latency of an addition

// the sum of all chains' lanes, by halves
template <class A>
inline A lane_sum(const Lanes<A>* chains) {
  constexpr int64_t kAll = kChains * Lanes<A>::kCount;
  A part[kAll];
  for (int i = 0; i < kChains; ++i) chains[i].store(part + i * Lanes<A>::kCount);
  for (int64_t half = kAll / 2; half >= 1; half /= 2)
    for (int64_t i = 0; i < half; ++i) part[i] += part[i + half];
  return part[0];
}

template <class A>
inline A dot(const A* a, const A* b, int64_t n) {
  constexpr int64_t kStep = Lanes<A>::kCount;
  Lanes<A> chains[kChains];
  int64_t i = 0;
  for (; i + kChains * kStep <= n; i += kChains * kStep)
    for (int64_t c = 0; c < kChains; ++c)
      chains[c].add_product(Lanes<A>::load(a + i + c * kStep), Lanes<A>::load(b + i + c * kStep));
  A tail = 0;
  for (; i < n; ++i) tail = std::fma(a[i], b[i], tail);
  return lane_sum(chains) + tail;
}

template <class A>
inline A total(const A* a, int64_t n) {
  constexpr int64_t kStep = Lanes<A>::kCount;
  Lanes<A> chains[kChains];
  int64_t i = 0;
  for (; i + kChains * kStep <= n; i += kChains * kStep)
    for (int64_t c = 0; c < kChains; ++c) chains[c].add(Lanes<A>::load(a + i + c * kStep));
  A tail = 0;
  for (; i < n; ++i) tail += a[i];
  return lane_sum(chains) + tail;
}

// y += s · x
template <class A>
inline void axpy(A s, const A* x, A* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += s * x[i];
}

// e^x. f32: reduction by ln 2 in two parts and a degree-6 polynomial (Cephes), about 1 ulp, in a form that vectorises;
// 0 below the smallest denormal, NaN stays NaN.
inline double exp_of(double x) { return std::exp(x); }
inline float exp_of(float x) {
  const float high = 88.8f, low = -104.f;
  const float v = x > high ? high : x < low ? low : x;
  const float shifted = std::fma(v, 1.44269504088896341f, 12582912.f);  // 1.5 · 2^23: rounds to an integer
  const float n = shifted - 12582912.f;
  const float r = std::fma(n, 2.12194440e-4f, std::fma(n, -0.693359375f, v));
  float p = 1.9875691500e-4f;
  p = std::fma(p, r, 1.3981999507e-3f);
  p = std::fma(p, r, 8.3334519073e-3f);
  p = std::fma(p, r, 4.1665795894e-2f);
  p = std::fma(p, r, 1.6666665459e-1f);
  p = std::fma(p, r, 5.0000001201e-1f);
  p = std::fma(p, r * r, r) + 1.f;
  const int32_t whole = std::bit_cast<int32_t>(shifted) - 0x4B400000, half = whole >> 1;
  const float y = p * std::bit_cast<float>((half + 127) << 23) * std::bit_cast<float>((whole - half + 127) << 23);
  return x < low ? 0.f : y;
}

// A view as rows of its last dimension.
struct Rows {
  const View& v;
  int64_t n, rows, step;
  explicit Rows(const View& view) : v(view) {
    n = view.rank ? view.dim(-1) : 1;
    step = view.rank ? view.stride(-1) : 1;
    rows = 1;
    for (int i = 0; i + 1 < view.rank; ++i) rows *= view.shape[i];
  }
  int64_t offset(int64_t row) const {
    if (v.rank == 2) return row * v.strides[0];
    int64_t at = 0;
    for (int i = v.rank - 2; i >= 0; --i) {
      at += row % v.shape[i] * v.strides[i];
      row /= v.shape[i];
    }
    return at;
  }
};

inline int64_t grain_of(int64_t elements_per_item, int64_t target = 16384) {
  return std::max<int64_t>(1, target / std::max<int64_t>(1, elements_per_item));
}

// body(row, first column, columns) over pieces of at most kBlock columns
template <class Body>
void for_blocks(const KernelContext& kernel, int64_t rows, int64_t n, Body&& body) {
  if (rows <= 0 || n <= 0) return;
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  kernel.threads->parallel_for(rows * blocks, grain_of(std::min(n, kBlock)), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t first = t % blocks * kBlock;
      body(t / blocks, first, std::min(kBlock, n - first));
    }
  });
}

template <class Body>
void for_rows(const KernelContext& kernel, int64_t rows, int64_t n, Body&& body) {
  if (rows <= 0) return;
  kernel.threads->parallel_for(rows, grain_of(n), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) body(r);
  });
}

// body(item, worker) over [0, n), taken dynamically: for kernels with workspace per worker
template <class Body>
void for_items(const KernelContext& kernel, int64_t n, Body&& body) {
  if (n <= 0) return;
  if (n == 1) return body(int64_t{0}, 0);
  std::atomic<int64_t> next{0};
  kernel.threads->run([&](int worker) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) body(i, worker);
  });
}

inline int64_t workers_of(const KernelContext& kernel) { return kernel.threads->size(); }

inline bool is_contiguous(const View& v) {
  int64_t step = 1;
  for (int i = v.rank - 1; i >= 0; --i) {
    if (v.shape[i] != 1 && v.strides[i] != step) return false;
    step *= v.shape[i];
  }
  return true;
}

// the same elements as one row
inline View flattened(const View& v) {
  View f = v;
  f.rank = 1;
  f.shape[0] = v.numel();
  f.strides[0] = 1;
  return f;
}

// runs body(A{}) with the accumulator that `dtype` asks for
template <class Body>
inline void with_accumulator(DType dtype, Body&& body) {
  if (is_double(dtype))
    body(double{});
  else
    body(float{});
}

}  // namespace pmetal::cpu

#pragma GCC pop_options
