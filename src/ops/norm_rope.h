// RMS norm of each head, then rotary embedding: what stands between the projections of q and k and attention while
// training, in one pass each way on a device that has the kernel, else as the two ops. Values are rounded where those
// round.
#pragma once

#include "ops/rope.h"

namespace pmetal::ops {

struct NormRopeArgs {
  View x, weight;  // [tokens, heads, d], [d]
  View cos, sin;   // [tokens, d / 2] f32: halves of a head turn together
  View y;          // of x's shape
  float eps = 0;
};
PMETAL_DECLARE_FUSED_KERNELS(norm_rope, NormRopeArgs)
struct NormRopeBackwardArgs {
  View x, weight, cos, sin, dy;
  View dx;       // or none
  View dweight;  // [d] f32, added to, or none
  float eps = 0;
};
PMETAL_DECLARE_FUSED_KERNELS(norm_rope_backward, NormRopeBackwardArgs)

// rope(rms_norm(x, weight, eps), table); x [tokens, heads, d]
Tensor norm_rope(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const RopeTable& table);

}  // namespace pmetal::ops
