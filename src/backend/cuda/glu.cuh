// The gated activations' functions, for kernels that apply them.
#pragma once

#include "backend/cuda/device.cuh"

namespace pmetal::cuda {

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.f, 1.f + __expf(-x)); }

// value and derivative of the activation
__device__ __forceinline__ void evaluate(int activation, float v, float& y, float& s) {
  switch (activation) {
    case kActSilu: {
      const float p = sigmoid(v);
      y = v * p;
      s = p * (1.f + v * (1.f - p));
      return;
    }
    case kActGelu: {
      const float p = 0.5f * (1.f + erff(v * 0.70710678118654752440f));
      y = v * p;
      s = p + v * 0.39894228040143267794f * expf(-0.5f * v * v);
      return;
    }
    case kActGeluTanh: {
      const float c = 0.79788456080286535588f, k = 0.044715f;
      const float t = tanhf(c * (v + k * v * v * v));
      y = 0.5f * v * (1.f + t);
      s = 0.5f * (1.f + t) + 0.5f * v * (1.f - t * t) * c * (1.f + 3 * k * v * v);
      return;
    }
    case kActRelu:
      y = v > 0 || v != v ? v : 0.f;
      s = v > 0 ? 1.f : 0.f;
      return;
    case kActRelu2:
      y = v > 0 || v != v ? v * v : 0.f;
      s = v > 0 ? 2 * v : 0.f;
      return;
    case kActQuickGelu: {
      const float k = 1.702f, p = sigmoid(k * v);
      y = v * p;
      s = p * (1.f + k * v * (1.f - p));
      return;
    }
    default: y = v, s = 1.f;
  }
}

__device__ __forceinline__ float activated(int activation, float v) {
  float y, slope;
  evaluate(activation, v, y, slope);
  return y;
}

}  // namespace pmetal::cuda
