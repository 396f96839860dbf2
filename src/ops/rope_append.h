// What stands between the projections of a step and its attention, as one op: RMS norm of each head of q and k (where
// the model has it), rotary embedding of q and k, and keys and values into their slots of the paged store. Values are
// rounded where the ops that it stands for (rms_norm, rope, kv_append) round. Not differentiable.
#pragma once

#include "ops/rope.h"

namespace pmetal::ops {

struct RopeAppendArgs {
  View q, k, v;           // [tokens, heads, d]
  View q_norm, k_norm;    // [d] or none
  View cos, sin;          // [tokens, rotary_dim / 2], halves of a head turn together
  View q_out;             // [tokens, q_heads, d]
  View k_pages, v_pages;  // [pages, kv_heads, 64, d]
  View slots;             // [tokens] i64; negative: not written
  float eps = 0;
};
PMETAL_DECLARE_FUSED_KERNELS(rope_append, RopeAppendArgs)

struct HeadNorms {
  Tensor q, k;  // [d], or undefined: the model has none
  float eps = 0;
};
// the turned queries, or nothing where no kernel of the device takes it
Tensor rope_append(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v, const HeadNorms& norms,
                   const RopeTable& table, const Tensor& k_pages, const Tensor& v_pages, const Tensor& slots);

}  // namespace pmetal::ops
