// The head and its loss, chunk by chunk: full logits never exist. Rows of hidden states meet the head matrix; a loss is
// a function of the rows of logits. head_loss is the cross entropy of the next token; token_logprobs gives each row's
// log-probability to objectives that combine them (DPO, GRPO ...); head_chunks takes any function of logit rows
// (distillation).
#pragma once

#include <functional>

#include "quant/weight.h"
#include "tensor/kernel.h"

namespace pmetal::ops {

// One pass of fused linear + cross entropy over rows [M, hidden] with frozen or trainable head.
struct HeadLossArgs {
  View hidden;                            // [M, n]
  const quant::Weight* weight = nullptr;  // frozen head [V, n] in any format, or
  View dense;                             // trainable head [V, n]
  View labels;                            // [M] i32, every one in [0, V): ignored rows are left out by the caller
  View row_scale;                         // [M] f32: weight of each row in the loss (1 / valid tokens, usually)
  View nll, entropy;                      // [M] f32 out; entropy may be none
  View correct;                           // [M] u8 out or none: arg max == label
  View dhidden;                           // [M, n] out or none: d(sum of row_scale · nll) / d hidden
  View dweight;                           // [V, n] f32 or none; added to
  float logit_scale = 1;                  // logits are multiplied by this (Cohere, Granite)
  float softcap = 0;                      // then capped
  float z_loss = 0;                       // adds z_loss · lse² to each row's loss (and to nll)
  float label_smoothing = 0;
};
PMETAL_DECLARE_KERNELS(head_loss, HeadLossArgs)

struct HeadLoss {
  Tensor loss;          // [1] f32: sum of row_scale · nll; differentiable
  Tensor nll, entropy;  // [M] f32 per row
  Tensor correct;       // [M] u8
};
struct HeadLossOptions {
  float logit_scale = 1, softcap = 0, z_loss = 0, label_smoothing = 0;
  bool want_entropy = true;
};
// `weight` (frozen) or `dense` (trainable leaf). Gradients to hidden and dense are computed in the forward when the
// context records, and scaled by the upstream gradient in the backward.
HeadLoss head_loss(Context& ctx, const Tensor& hidden, const quant::Weight* weight, const Tensor& dense,
                   const Tensor& labels, const Tensor& row_scale, const HeadLossOptions& options = {});

struct TokenLogprobs {
  Tensor logprobs;  // [M] f32: log p(label); differentiable
  Tensor entropy;   // [M] f32, as numbers
  Tensor correct;   // [M] u8
};
// The backward meets the head once more, with the upstream gradients as weights of the rows: nothing of size V is kept.
// logit_scale and softcap of the options apply; z_loss and label_smoothing must be 0.
TokenLogprobs token_logprobs(Context& ctx, const Tensor& hidden, const quant::Weight* weight, const Tensor& dense,
                             const Tensor& labels, const HeadLossOptions& options = {});

// Sum of `loss` over chunks of rows: loss(ctx, logits [rows, V] f32, first_row) -> [1], made of ops whose one
// differentiable input is the logits (scaled and capped as the options say). Gradients are computed in the forward when
// the context records, chunk by chunk.
using LogitLoss = std::function<Tensor(Context&, const Tensor& logits, int64_t first_row)>;
Tensor head_chunks(Context& ctx, const Tensor& hidden, const quant::Weight* weight, const Tensor& dense,
                   const HeadLossOptions& options, const LogitLoss& loss);

}  // namespace pmetal::ops
