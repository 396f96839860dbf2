// Products with weights and between activations. All accumulate in f32 (f64 for f64 tensors) in an order that depends
// on nothing but the inner size: a row's bits do not depend on its batch mates, on the number of rows or on threads.
#pragma once

#include <optional>

#include "quant/weight.h"
#include "tensor/kernel.h"

namespace pmetal::ops {

// y[M, out] = x[M, in] · Wᵀ (+ bias), or with `transposed` y[M, in] = x[M, out] · W. W in any weight format.
struct LinearArgs {
  View x;  // [M, K], rows may be strided, f32 | bf16 | f16 | f64
  const quant::Weight* weight = nullptr;
  View bias;  // [out] or none
  View y;     // [M, N], rows may be strided
  bool transposed = false;
  bool accumulate = false;  // y += instead of y =
};
PMETAL_DECLARE_KERNELS(linear, LinearArgs)

// c[M, N] = alpha · op(a) · op(b) (+ c). a is [M, K] or, transposed, [K, M]; b is [K, N] or, transposed, [N, K].
struct MatmulArgs {
  View a, b, c;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  float alpha = 1;
};
PMETAL_DECLARE_KERNELS(matmul, MatmulArgs)

// Frozen weight: gradient flows to x alone. `out_dtype` defaults to x's.
Tensor linear(Context& ctx, const Tensor& x, const quant::Weight& weight, const Tensor& bias = {},
              std::optional<DType> out_dtype = {});
// Same weight, x[M, out] · W -> [M, in]
Tensor linear_transposed(Context& ctx, const Tensor& x, const quant::Weight& weight,
                         std::optional<DType> out_dtype = {});
// Trainable dense weight [out, in]; gradients to x, weight and bias.
Tensor linear_dense(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& bias = {},
                    std::optional<DType> out_dtype = {});
// op(a)·op(b)·alpha, 2-D, differentiable in both.
Tensor matmul(Context& ctx, const Tensor& a, const Tensor& b, bool transpose_a = false, bool transpose_b = false,
              float alpha = 1, std::optional<DType> out_dtype = {});

// The weight format this device's best kernels want for a dense weight of this dtype (e.g. "bf16_tile" on the CPU);
// the format itself when it is already best.
const quant::Format& preferred_format(Device device, const quant::Format& dense);
// the backends' answers: names of formats
std::string_view preferred_format_cpu(const quant::Format& dense);
std::string_view preferred_format_cuda(const quant::Format& dense);

}  // namespace pmetal::ops
