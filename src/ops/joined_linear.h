// Products of trainable weights that share their input and lie one below the other in memory, as one product each way:
// the input is read once, its gradient is one sum over all their outputs, their gradients are one matrix.
#pragma once

#include <span>
#include <vector>

#include "tensor/tape.h"

namespace pmetal::ops {

// The weights [out_i, in] as one matrix [Σ out_i, in], or an undefined tensor where they, or the gradients they are
// leaves for, do not lie that way.
Tensor joined_weights(std::span<const Tensor> weights);

// x [rows, in] · wᵢᵀ for each weight, of which joined_weights() is defined: columns of one tensor. Gradients to x and
// the weights.
std::vector<Tensor> joined_linear(Context& ctx, const Tensor& x, std::span<const Tensor> weights);

}  // namespace pmetal::ops
