// Low-rank update of a Linear's output (Hu et al. 2021): y = base + scale · (x Aᵀ) Bᵀ, written over `base`.
// A [r, in], B [out, r]. Backward: u = dy B; dx = scale · u A, dA = scale · uᵀ x, dB = scale · dyᵀ (x Aᵀ). The scale is
// applied to the narrow products x Aᵀ and dy B, before they are rounded.
#pragma once

#include "tensor/tape.h"

namespace pmetal::ops {

// x [rows, in], base [rows, out] (its bytes are overwritten: nothing may have saved them; a Linear's output never is).
Tensor lora(Context& ctx, const Tensor& x, const Tensor& base, const Tensor& a, const Tensor& b, float scale);

}  // namespace pmetal::ops
