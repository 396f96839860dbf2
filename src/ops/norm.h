// RMS norm (Zhang & Sennrich 2019): y = x / sqrt(mean(x²) + eps) · (w + offset). Statistics in f32; as in the
// reference, x·rstd is rounded to x's dtype before the multiplication with w.
#pragma once

#include "tensor/kernel.h"

namespace pmetal::ops {

// On a GPU x, y, dy and dx may all be [tokens, heads, n] instead, where heads do not lie one behind the other.
struct RmsNormArgs {
  View x;         // [rows, n], rows may be strided
  View residual;  // [rows, n] or none: x + residual is normalised and written to `sum`
  View weight;    // [n]
  View sum;       // [rows, n] when residual is given
  View y;         // [rows, n]
  float eps = 1e-6f;
  float offset = 0;
};
PMETAL_DECLARE_KERNELS(rms_norm, RmsNormArgs)

struct RmsNormBackwardArgs {
  View x, weight, dy;
  View dx;       // [rows, n] or none
  View dx_add;   // [rows, n] or none: added into dx (the residual branch's own gradient)
  View dweight;  // [n] f32 or none; added to
  float eps = 1e-6f;
  float offset = 0;
};
PMETAL_DECLARE_KERNELS(rms_norm_backward, RmsNormBackwardArgs)

// Over the last dimension. The output can be made again (see Tape). `room`: see Tensor::room(); for [rows, n] alone.
Tensor rms_norm(Context& ctx, const Tensor& x, const Tensor& weight, float eps, float offset = 0, int64_t room = 0);

struct SumAndNorm {
  Tensor sum, normed;
};
// sum = x + residual (rounded to the dtype), normed = rms_norm(sum)
SumAndNorm add_rms_norm(Context& ctx, const Tensor& x, const Tensor& residual, const Tensor& weight, float eps,
                        float offset = 0, int64_t room = 0);

}  // namespace pmetal::ops
