// View: what a kernel receives. Free of heavy headers, so that every compiler of the project takes it.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace pmetal {

inline constexpr int kMaxRank = 6;

// What a kernel receives: pointer, dtype, shape, strides in elements. No ownership.
struct View {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  int64_t shape[kMaxRank] = {};
  int64_t strides[kMaxRank] = {};

  template <class T>
  constexpr T* as() const {  // constexpr: callable on a device
    return static_cast<T*>(data);
  }
  int64_t dim(int i) const { return shape[i < 0 ? i + rank : i]; }
  int64_t stride(int i) const { return strides[i < 0 ? i + rank : i]; }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }
  explicit operator bool() const { return data != nullptr; }
};

}  // namespace pmetal
