// Low-rank update of a Linear's output (Hu et al. 2021): y = base + scale · (x Aᵀ) Bᵀ, written over `base`.
// A [r, in], B [out, r]. Backward: u = dy B; dx = scale · u A, dA = scale · uᵀ x, dB = scale · dyᵀ (x Aᵀ). The scale is
// applied to the narrow products x Aᵀ and dy B, before they are rounded.
#pragma once

#include "ops/linear.h"
#include "tensor/tape.h"

namespace pmetal::ops {

// `linear` with a product of small inner size that goes to the same sums before they are rounded: + low_x [M, r] ·
// low_wᵀ, low_w [out, r], or when transposed · low_w, low_w [r, in].
struct LinearLowArgs {
  LinearArgs linear;
  View low_x, low_w;
};
// Fused, on the CPU alone (AMX); where no candidate takes the arguments the caller runs the ops that it stands for.
extern const KernelList<LinearLowArgs> linear_low_cpu;

// What the gradients of a low-rank update need of a wide matrix m [T, N], in one pass over it:
//   out [T, r] = alpha · m · w,                w [N, r], or when w_is_turned [r, N]
//   g [N, r], or when g_is_turned [r, N] += mᵀ · v,    f32; v [T, r]
// Each where its views are given.
struct LowGradArgs {
  View m;
  View w, out;
  View v, g;
  bool w_is_turned = false, g_is_turned = false;
  float alpha = 1;
};
extern const KernelList<LowGradArgs> low_grad_cpu;  // AMX alone; else two products do the same

// What a Linear with a frozen weight and a low-rank update gives, as one op: x · Wᵀ + bias + scale · (x_low Aᵀ) Bᵀ.
// x_low is x, or x after dropout. Neither y nor dx goes to memory twice. Undefined when no kernel of the device takes
// it (GPUs, other formats and types): then linear and lora do the same with a rounding more. has_linear_lora() says so
// beforehand.
bool has_linear_lora(Context& ctx, const Tensor& x, const quant::Weight& weight, const Tensor& bias, const Tensor& a);
Tensor linear_lora(Context& ctx, const Tensor& x, const quant::Weight& weight, const Tensor& bias, const Tensor& x_low,
                   const Tensor& a, const Tensor& b, float scale);

// x [rows, in], base [rows, out] (its bytes are overwritten: nothing may have saved them; a Linear's output never is).
Tensor lora(Context& ctx, const Tensor& x, const Tensor& base, const Tensor& a, const Tensor& b, float scale);

}  // namespace pmetal::ops
