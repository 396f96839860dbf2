// The parts of a pre-norm block between which nothing else happens: norm and projections, projection and residual sum,
// norm and gated pair, heads to attention. A step that records nothing, on a device with fused kernels, runs each as
// one op (ops/linear_group.h, ops/rope_append.h); with adapters, while recording and elsewhere, as the ops they stand
// for.
#pragma once

#include "nn/linear.h"
#include "ops/activation.h"
#include "ops/linear_group.h"
#include "ops/rope_append.h"

namespace pmetal::nn {

// The residual stream between blocks: what it is plus what the last block still has to add (the next norm fuses the
// sum).
struct Hidden {
  Tensor residual, delta;
  Tensor sum(Context& ctx) const { return delta.defined() ? ops::add(ctx, residual, delta) : residual; }
};

struct Norm {
  const Tensor& weight;
  float eps;
};

// The frozen weight alone decides what it gives: no adapter, no trainable leaf, no room for updates between its rows.
bool is_plain(const Linear& linear);
inline ops::WeightAndBias frozen(const Linear& linear) { return {&linear.weight, linear.bias}; }

struct Projected {
  Tensor residual;  // what x sums to
  std::vector<Tensor> outputs;
};
// the linears of norm(x)
Projected project(Context& ctx, const Batch& batch, const Hidden& x, const Norm& norm,
                  std::span<const Linear* const> linears);
// act(gate(norm(x))) · up(norm(x)), the one output, with `room` behind its rows (see room_for())
Projected project_gated(Context& ctx, const Batch& batch, const Hidden& x, const Norm& norm, const Linear& gate,
                        const Linear& up, ops::Activation activation, int64_t room = 0);
// residual + linear(x)
Hidden add_projected(Context& ctx, const Batch& batch, const Tensor& residual, const Linear& linear, const Tensor& x);

// q, k, v [tokens, heads, d]: norms of the heads where there are any, rope, attention
Tensor attend_rotated(Context& ctx, int layer, Tensor q, Tensor k, const Tensor& v, const ops::HeadNorms& norms,
                      const ops::RopeTable& rope, const Batch& batch, const ops::AttentionOptions& options);

}  // namespace pmetal::nn
