// Rotary position embedding (Su et al. 2021), half-split (Hugging Face) or interleaved pairs. cos/sin tables are made
// once per step for all layers that share frequencies.
#pragma once

#include "tensor/kernel.h"

namespace pmetal::ops {

struct RopeTable {
  Tensor cos, sin;  // [tokens, rotary_dim / 2] f32 (f64 in f64 runs), attention factor included
  bool defined() const { return cos.defined(); }
};

struct RopeTableArgs {
  View positions;  // [tokens] i32
  View inv_freq;   // [rotary_dim / 2] f32
  View cos, sin;   // [tokens, rotary_dim / 2]
  float scale = 1;
};
PMETAL_DECLARE_KERNELS(rope_table, RopeTableArgs)
// angle = float(position) * inv_freq in f32, as the reference computes it
RopeTable rope_table(Context& ctx, const Tensor& positions, const Tensor& inv_freq, float scale,
                     DType dtype = DType::kF32);

struct RopeArgs {
  View x, y;      // [tokens, heads, head_dim]; the first 2 * cos.dim(1) features of each head are turned
  View cos, sin;  // [tokens, rotary_dim / 2]
  bool interleaved = false;
  bool inverse = false;  // the transpose: backward
};
PMETAL_DECLARE_KERNELS(rope, RopeArgs)
// The output can be made again (see Tape).
Tensor rope(Context& ctx, const Tensor& x, const RopeTable& table, bool interleaved = false);

}  // namespace pmetal::ops
