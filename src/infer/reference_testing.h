// What the tests against stored reference values share: reading expected tensors, measures of difference, leaves.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "formats/safetensors.h"
#include "models/model.h"
#include "ops/device.h"
#include "tensor/tape.h"

namespace pmetal::reference {

using formats::SafetensorsFile;

template <class T>
std::vector<T> values(const SafetensorsFile& f, const std::string& name) {
  const formats::TensorView& t = f.at(name);
  EXPECT_EQ(size_of(t.dtype), static_cast<int64_t>(sizeof(T)));
  std::vector<T> v(static_cast<size_t>(t.n_elements()));
  std::memcpy(v.data(), t.bytes.data(), v.size() * sizeof(T));
  return v;
}

// where these tests run: PMETAL_TEST_DEVICE (cuda), or the CPU
inline Context test_context() {
  const char* device = std::getenv("PMETAL_TEST_DEVICE");
  return ops::make_context(device ? parse_device(device) : kCpu, std::make_shared<ThreadPool>(2));
}

inline std::vector<float> floats(const Tensor& tensor) {
  const Tensor t = ops::host_copy(tensor);
  std::vector<float> v(static_cast<size_t>(t.numel()));
  convert(t.bytes(), t.dtype(), v.data(), DType::kF32, t.numel());
  return v;
}

struct Difference {
  double worst = 0, largest = 0;  // largest |difference|, largest |expected|
  double error = 0, size = 0;     // sums of squares
  double relative() const { return worst / std::max(largest, 1e-30); }
  double relative_norm() const { return std::sqrt(error / std::max(size, 1e-30)); }
};
inline Difference compare(std::span<const float> got, std::span<const float> want) {
  EXPECT_EQ(got.size(), want.size());
  Difference d;
  for (size_t i = 0; i < want.size() && i < got.size(); ++i) {
    const double e = std::fabs(static_cast<double>(got[i]) - want[i]);
    d.worst = std::isfinite(e) ? std::max(d.worst, e) : INFINITY;
    d.error += e * e;
    d.size += static_cast<double>(want[i]) * want[i];
    d.largest = std::max(d.largest, std::fabs(static_cast<double>(want[i])));
  }
  return d;
}

struct Leaves final : models::ParameterVisitor {
  std::map<std::string, Tensor> all;
  void take(const std::string& name, Tensor& slot) {
    if (!slot.defined()) return;
    slot = make_leaf(slot, name);
    all[name] = slot;
  }
  void on(nn::Linear& l) override {
    take(l.name() + ".weight", l.trainable);
    take(l.name() + ".bias", l.bias);
  }
  void on(nn::Embedding& e) override { take(e.name() + ".weight", e.trainable); }
  void on(nn::Parameter& p) override { take(p.name, p.value); }
};

}  // namespace pmetal::reference
