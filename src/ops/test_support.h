// For the tests of ops: a context, seeded tensors, values as f64.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "ops/elementwise.h"
#include "tensor/tape.h"

namespace pmetal::testing_support {

inline Context make_context(int threads = 2) { return Context(std::make_shared<ThreadPool>(threads)); }

// normal values of standard deviation `spread`, rounded to dtype
inline Tensor random_tensor(PhiloxStream& rng, const Shape& shape, DType dtype = DType::kF32, double spread = 1) {
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (double& v : values) v = rng.normal() * spread;
  Tensor t(allocate_host(shape.numel() * size_of(dtype)), shape, dtype);
  if (dtype == DType::kF64) {
    std::copy(values.begin(), values.end(), t.data<double>());
  } else {
    std::vector<float> narrow(values.begin(), values.end());
    convert(narrow.data(), DType::kF32, t.bytes(), dtype, t.numel());
  }
  return t;
}

template <class T>
Tensor tensor_of(const std::vector<T>& values, const Shape& shape, DType dtype) {
  return host_tensor<T>(std::span<const T>(values), shape, dtype);
}
inline Tensor ids_of(const std::vector<int32_t>& values) {
  return tensor_of(values, {static_cast<int64_t>(values.size())}, DType::kI32);
}
inline Tensor floats_of(const std::vector<float>& values, const Shape& shape) {
  return tensor_of(values, shape, DType::kF32);
}

// row-major values, whatever the strides and dtype
inline std::vector<double> values_of(const Tensor& t) {
  Context ctx = make_context(1);
  Tensor wide = ctx.empty(t.shape(), DType::kF64);
  ops::copy(ctx, t.detached(), wide);
  return {wide.data<double>(), wide.data<double>() + wide.numel()};
}

inline Tensor converted(const Tensor& t, DType dtype) {
  Context ctx = make_context(1);
  Tensor to = ctx.empty(t.shape(), dtype);
  ops::copy(ctx, t.detached(), to);
  return to;
}

// largest |a − b| relative to the largest |b|
inline double relative_error(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0, scale = 1e-30;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    worst = std::isnan(a[i]) != std::isnan(b[i]) ? INFINITY : std::max(worst, std::abs(a[i] - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  return worst / scale;
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && a.is_contiguous() && b.is_contiguous() &&
         std::memcmp(a.bytes(), b.bytes(), static_cast<size_t>(a.size_bytes())) == 0;
}

}  // namespace pmetal::testing_support
