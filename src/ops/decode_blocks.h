// All blocks of a pre-norm decoder for a step of one token, as one op: the residual stream goes in and comes out, keys
// and values go to their pages. Values are rounded where the ops that it stands for (rms_norm, linear, rope_append,
// attention, glu, add) round. Not differentiable. The function returns nothing where no kernel of the device takes the
// arguments: the caller runs those ops.
#pragma once

#include <vector>

#include "ops/attention.h"
#include "ops/linear_group.h"
#include "ops/rope.h"

namespace pmetal::ops {

struct DecodeBlock {
  WeightAndBias q, k, v, o, gate, up, down;
  Tensor input_norm, post_norm;
  Tensor q_norm, k_norm;    // [head_dim], or undefined: the model has none
  int64_t window = 0;       // keys that are seen; 0: all
  Tensor k_pages, v_pages;  // [pages, kv_heads, 64, head_dim]
};
struct DecodeBlocks {
  std::vector<DecodeBlock> blocks;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  float eps = 0, scale = 1;
  Activation activation = Activation::kSilu;
};

struct DecodeBlocksArgs {
  const DecodeBlocks* model = nullptr;
  View x, y;                       // [1, hidden]
  View cos, sin;                   // [1, head_dim / 2]
  View slots, kv_len, page_table;  // as in AttentionArgs and KvAppendArgs, of one sequence
};
PMETAL_DECLARE_FUSED_KERNELS(decode_blocks, DecodeBlocksArgs)

Tensor decode_blocks(Context& ctx, const Tensor& x, const DecodeBlocks& model, const RopeTable& table,
                     const Tensor& slots, const AttentionRows& rows);

}  // namespace pmetal::ops
