// What the launchers share: views simplified for kernels.
#pragma once

#include <initializer_list>

#include "backend/cuda/kernels.h"
#include "backend/cuda/stream.h"
#include "base/error.h"

namespace pmetal::cuda {

inline bool is_double(DType dtype) { return dtype == DType::kF64; }
// integers pass through f64, which holds every i32 and all ids that occur
inline bool is_wide(DType dtype) { return is_double(dtype) || !is_floating(dtype); }

inline bool is_aligned(const View& v, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(v.data) % static_cast<uintptr_t>(bytes) == 0;
}

// Merges dimensions that lie together in all views (of one shape).
inline void merge_dimensions(std::initializer_list<View*> views) {
  View& lead = **views.begin();
  if (lead.rank == 0) {
    for (View* v : views) v->rank = 1, v->shape[0] = v->strides[0] = 1;
    return;
  }
  int to = 0;
  for (int from = 1; from < lead.rank; ++from) {
    bool together = true;
    for (const View* v : views)
      together &= v->shape[to] == 1 || v->shape[from] == 1 || v->strides[to] == v->strides[from] * v->shape[from];
    if (!together) ++to;
    for (View* v : views) {
      if (together) {
        if (v->shape[from] != 1) v->strides[to] = v->strides[from];
        v->shape[to] *= v->shape[from];
      } else {
        v->shape[to] = v->shape[from];
        v->strides[to] = v->strides[from];
      }
    }
  }
  for (View* v : views) v->rank = to + 1;
}

// 4 where each view's innermost dimension is contiguous (or, with zero_step, of step 0) and packs of four stay aligned
inline int pack_of(std::initializer_list<const View*> views, bool zero_step = false) {
  for (const View* v : views) {
    const int last = v->rank - 1;
    const bool steady = zero_step && v->strides[last] == 0;
    if (v->shape[last] % 4 || (v->strides[last] != 1 && !steady)) return 1;
    if (steady) continue;
    if (!is_aligned(*v, 4 * size_of(v->dtype))) return 1;
    for (int i = 0; i < last; ++i)
      if (v->shape[i] > 1 && v->strides[i] % 4) return 1;
  }
  return 4;
}

// rows [rows, n] start on 16 bytes and hold whole packs of eight
inline bool has_packed_rows(const View& v) {
  return !v.data || (is_aligned(v, 16) && v.dim(-1) % 8 == 0 && v.stride(-1) == 1 &&
                     (v.rank < 2 || v.dim(0) <= 1 || v.stride(0) % 8 == 0));
}

}  // namespace pmetal::cuda
