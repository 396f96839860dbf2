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

}  // namespace pmetal::ops
