// The optimizer step and global norm over flat buffers, one launch for all parameters.
#pragma once

#include "tensor/kernel.h"

namespace pmetal::ops {

// AdamW (Loshchilov & Hutter 2019), decoupled decay: w·(1 − lr·wd), then w −= lr·m̂/(√v̂ + eps).
struct AdamWArgs {
  View master;  // [n] f32
  View grad;    // [n] f32
  View m, v;    // [n] f32
  View weight;  // [n] in the compute dtype, written from master; none when master is the weight
  float lr = 0, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, weight_decay = 0;
  float grad_scale = 1;  // clipping factor
  int64_t step = 1;      // counts from 1
  // What decide_step() left, in place of grad_scale and step; a step that it does not let pass changes nothing. On a
  // GPU alone.
  View decision;
};
PMETAL_DECLARE_KERNELS(adamw, AdamWArgs)
void adamw(Context& ctx, const Tensor& master, const Tensor& grad, const Tensor& m, const Tensor& v,
           const Tensor& weight, const AdamWArgs& hyper);

// sum of squares in f64 over fixed blocks of 4096 elements, added in order: same bits for any number of threads
struct SumSquaresArgs {
  View x;
  View out; /* [1] f64 */
};
PMETAL_DECLARE_KERNELS(sum_squares, SumSquaresArgs)
double sum_squares(Context& ctx, const Tensor& x);

// Whether and how a step is made, decided where its gradients are: no host waits for their norm. On a GPU alone.
struct StepDecision {  // as f64, one after the other
  double updates;      // made so far; one more when this one passes
  double passes;       // 1 when the norm and the loss are finite
  double norm;         // of the gradient
  double scale;        // clipping factor: min(1, max_norm / (norm + 1e-6))
};
inline constexpr int64_t kStepDecision = 4;
struct StepDecisionArgs {
  View gradient;        // [n] f32
  View loss;            // [1] f32
  View decision;        // [kStepDecision] f64
  double max_norm = 0;  // 0: no clipping
};
PMETAL_DECLARE_FUSED_KERNELS(step_decision, StepDecisionArgs)
void decide_step(Context& ctx, const Tensor& gradient, const Tensor& loss, double max_norm, const Tensor& decision);

}  // namespace pmetal::ops
