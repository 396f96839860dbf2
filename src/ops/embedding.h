// Rows of a table by token id.
#pragma once

#include "quant/weight.h"
#include "tensor/kernel.h"

namespace pmetal::ops {

struct EmbeddingArgs {
  View ids;                               // [tokens] i32
  const quant::Weight* weight = nullptr;  // any format; or
  View dense;                             // [vocabulary, n]
  View y;                                 // [tokens, n]
  float scale = 1;                        // y = scale · row, rounded to y's dtype
};
PMETAL_DECLARE_KERNELS(embedding, EmbeddingArgs)

struct EmbeddingBackwardArgs {
  View ids, dy;
  View dweight;  // [vocabulary, n] f32, added to, in token order (deterministic)
  float scale = 1;
  int64_t padding_index = -1;  // rows with this id give no gradient (the reference's padding_idx)
};
PMETAL_DECLARE_KERNELS(embedding_backward, EmbeddingBackwardArgs)

// ids outside [0, vocabulary) must have been refused before: kernels assert.
Tensor embedding(Context& ctx, const Tensor& ids, const quant::Weight& weight, DType dtype, float scale = 1);
Tensor embedding_dense(Context& ctx, const Tensor& ids, const Tensor& weight, DType dtype, float scale = 1,
                       int64_t padding_index = -1);

}  // namespace pmetal::ops
