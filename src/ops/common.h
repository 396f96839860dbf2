// Shared by the ops: shape checks and the views that kernels want.
#pragma once

#include <algorithm>

#include "base/error.h"
#include "tensor/tape.h"

namespace pmetal::ops {

// accumulator dtype of a computation on tensors of `dtype`
inline DType wide(DType dtype) { return dtype == DType::kF64 ? DType::kF64 : DType::kF32; }

// True when all dimensions before the last are evenly spaced rows, whose elements lie side by side.
inline bool is_mergeable(const Tensor& t) {
  int64_t expected = -1;
  for (int i = t.rank() - 2; i >= 0; --i) {
    if (t.shape()[i] == 1) continue;
    if (expected >= 0 && t.strides()[i] != expected) return false;
    expected = t.strides()[i] * t.shape()[i];
  }
  return t.rank() >= 1 && (t.dim(-1) == 1 || t.strides()[-1] == 1);
}

// [rows, n] over the last dimension. The tensor must be mergeable.
inline View as_rows(const Tensor& t) {
  PMETAL_ASSERT(is_mergeable(t), "rows of {} are not evenly spaced", t.shape().to_string());
  View v = t.view();
  const int64_t n = v.dim(-1), step = v.stride(-1);
  int64_t rows = 1, outer = n;
  for (int i = 0; i + 1 < v.rank; ++i) rows *= v.shape[i];
  for (int i = v.rank - 2; i >= 0; --i)
    if (v.shape[i] != 1) {
      outer = v.strides[i];
      break;
    }
  return View{v.data, v.dtype, 2, {rows, n}, {outer, step}};
}

// t itself, or a contiguous copy where its rows are not evenly spaced
Tensor with_rows(Context& ctx, const Tensor& t);

template <class... Args>
void require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) [[unlikely]]
    fail(ErrorCode::kInvalidInput, format, std::forward<Args>(args)...);
}

}  // namespace pmetal::ops
