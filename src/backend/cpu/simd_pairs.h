// Two vectors of a row at a time. Of bf16 they are the even and the odd elements of a line, where the instruction set
// makes that the cheap way (one load, one shift, one mask instead of two widenings); else one behind the other.
// Included by simd_*.cc before simd_rows.h.
#pragma once

namespace pmetal::cpu {
namespace {

struct Full {};
struct Part {
  int64_t n;
};
struct Both {};  // two whole vectors
template <class P>
inline constexpr int kVectors = std::is_same_v<P, Both> ? 2 : 1;
template <class V, class T>
inline constexpr bool kSplitsLines = std::is_same_v<T, BF16>&& V::kIsa == Isa::kAvx512Bf16;

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

// v[0 .. kVectors<P>) from p and to it
template <class V, class T, class P>
PMETAL_INLINE void fetch(const T* p, typename V::F* v, P part) {
  if constexpr (!std::is_same_v<P, Both>) {
    v[0] = get<V>(p, part);
  } else if constexpr (kSplitsLines<V, T>) {
    V::split(_mm512_loadu_si512(p), v);
  } else {
    v[0] = V::load(p), v[1] = V::load(p + V::kWidth);
  }
}
template <class V, class T, class P>
PMETAL_INLINE void deliver(T* p, const typename V::F* v, P part) {
  if constexpr (!std::is_same_v<P, Both>) {
    put<V>(p, v[0], part);
  } else if constexpr (kSplitsLines<V, T>) {
    _mm512_storeu_si512(p, V::join(v));
  } else {
    V::store(p, v[0]), V::store(p + V::kWidth, v[1]);
  }
}
// Whether whole lines of v go past the caches: it is more than stays in them until somebody reads it. The store of a
// line that is not in a cache fetches it else. Who stores so ends with settle_past.
template <class V, class T>
bool goes_past(const View& v) {
  if constexpr (!kSplitsLines<V, T>) return false;
  constexpr int64_t kBytes = 1 << 20, kLine = 64;
  return v && v.dim(0) * v.dim(1) * size_of(v.dtype) >= kBytes && reinterpret_cast<uintptr_t>(v.data) % kLine == 0 &&
         v.stride(0) * size_of(v.dtype) % kLine == 0;
}
template <class V, class T, class P>
PMETAL_INLINE void deliver(T* p, const typename V::F* v, P part, bool past) {
  if constexpr (std::is_same_v<P, Both> && kSplitsLines<V, T>)
    if (past) return _mm512_stream_si512(reinterpret_cast<__m512i*>(p), V::join(v));
  deliver<V>(p, v, part);
}
inline void settle_past(bool past) {
  if (past) _mm_sfence();
}
template <class V, class T, class P>
PMETAL_INLINE void round_all(typename V::F* v, P) {
  if constexpr (std::is_same_v<P, Both> && kSplitsLines<V, T>)
    V::split(V::join(v), v);
  else
    for (int k = 0; k < kVectors<P>; ++k) v[k] = rounded<V, T>(v[k]);
}
// a row of f32 in the order in which rows of T are fetched
template <class V, class T>
PMETAL_INLINE void fetch_beside(const float* p, typename V::F* v) {
  v[0] = V::load(p), v[1] = V::load(p + V::kWidth);
  if constexpr (kSplitsLines<V, T>) {
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512 first = v[0], second = v[1];
    v[0] = _mm512_permutex2var_ps(first, even, second);
    v[1] = _mm512_permutex2var_ps(first, _mm512_add_epi32(even, _mm512_set1_epi32(1)), second);
  }
}

// body(i, Full or Part) over [0, n)
template <class V, class Body>
PMETAL_INLINE void sweep(int64_t n, Body&& body) {
  int64_t i = 0;
  for (; i + V::kWidth <= n; i += V::kWidth) body(i, Full{});
  if (i < n) body(i, Part{n - i});
}
// body(i, Both, Full or Part) over [0, n)
template <class V, class Body>
PMETAL_INLINE void sweep_pairs(int64_t n, Body&& body) {
  int64_t i = 0;
  for (; i + 2 * V::kWidth <= n; i += 2 * V::kWidth) body(i, Both{});
  if (i + V::kWidth <= n) body(i, Full{}), i += V::kWidth;
  if (i < n) body(i, Part{n - i});
}

template <class T>
T* row_of(const View& v, int64_t row) {
  return static_cast<T*>(v.data) + row * v.stride(0);
}

// Fetches rows of v into the caches kAhead bytes before they are read, which the hardware does only within a page: call
// at(i) for each line of the row.
template <class T>
class Ahead {
 public:
  Ahead(const View& v, int64_t row) : n_(v ? v.dim(1) : 0) {
    if (n_ == 0) return;
    const int64_t rows = kAhead / n_, last = v.dim(0) - 1;
    shift_ = kAhead % n_;
    row_ = row_of<T>(v, std::min(row + rows, last));
    next_ = row_of<T>(v, std::min(row + rows + 1, last)) - n_;
  }
  void at(int64_t i) const {
    if (n_ == 0) return;
    const int64_t to = i + shift_;
    _mm_prefetch(reinterpret_cast<const char*>((to < n_ ? row_ : next_) + to), _MM_HINT_T0);
  }

 private:
  static constexpr int64_t kAhead = 2048 / sizeof(T);
  const T *row_ = nullptr, *next_ = nullptr;
  int64_t n_, shift_ = 0;
};

}  // namespace
}  // namespace pmetal::cpu
