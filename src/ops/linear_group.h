// Products with weights that share their input, and what stands around them in a block, as one op: for
// steps of few rows on a GPU, for all steps on a CPU with AMX:
//   h = x, or rms_norm(x);  y_p = h · W_pᵀ (+ bias_p)
// or act(y_0) · y_1, or residual + y_0. Values are rounded where the ops that it stands for (rms_norm, linear, glu,
// add) round. Not differentiable: for steps that record nothing. The functions return nothing where no kernel of the
// device takes the arguments (many rows on a GPU, a CPU without AMX, other dtypes and formats): the caller runs those
// ops.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "ops/activation.h"
#include "quant/weight.h"
#include "tensor/kernel.h"

namespace pmetal::ops {

struct LinearGroupArgs {
  static constexpr size_t kMost = 3;
  View x;     // [M, K]
  View norm;  // [K] or none
  float eps = 0;
  size_t n = 0;  // weights in use
  std::array<const quant::Weight*, kMost> weight = {};
  std::array<View, kMost> bias = {};  // [out_p] or none
  std::array<View, kMost> y = {};     // [M, out_p]; gated: the first alone
  bool is_gated = false;              // two weights
  Activation activation = Activation::kSilu;
  View residual;  // [M, out] or none; one weight
};
PMETAL_DECLARE_FUSED_KERNELS(linear_group, LinearGroupArgs)

struct NormInput {
  const Tensor* weight = nullptr;  // null: x goes in as it is
  float eps = 0;
};
struct WeightAndBias {
  const quant::Weight* weight;
  Tensor bias;
};
std::vector<Tensor> linear_group(Context& ctx, const Tensor& x, const NormInput& norm,
                                 std::span<const WeightAndBias> weights);
// undefined when no kernel takes it
Tensor linear_glu(Context& ctx, const Tensor& x, const NormInput& norm, const WeightAndBias& gate,
                  const WeightAndBias& up, Activation activation);
Tensor linear_add(Context& ctx, const Tensor& x, const WeightAndBias& weight, const Tensor& residual);

}  // namespace pmetal::ops
