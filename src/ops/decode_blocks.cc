#include "ops/decode_blocks.h"

#include "ops/common.h"

namespace pmetal::ops {

Tensor decode_blocks(Context& ctx, const Tensor& x, const DecodeBlocks& model, const RopeTable& table,
                     const Tensor& slots, const AttentionRows& rows) {
  if (!ctx.device().is_cuda() || ctx.tape() || x.dim(0) != 1 || model.blocks.empty()) return {};
  require(x.rank() == 2 && slots.numel() == 1 && rows.kv_len.numel() == 1 && rows.page_table.defined() &&
              rows.page_table.dim(0) == 1 && table.cos.dim(0) == 1,
          "[decode_blocks] x is {}: not a step of one token over pages", x.shape().to_string());
  for (const DecodeBlock& b : model.blocks) {
    const int64_t hidden = x.dim(1), q = model.heads * model.head_dim, kv = model.kv_heads * model.head_dim,
                  inner = b.gate.weight->out;
    const auto fits = [](const WeightAndBias& w, int64_t in, int64_t out) {
      return w.weight->in == in && w.weight->out == out;
    };
    require(fits(b.q, hidden, q) && fits(b.k, hidden, kv) && fits(b.v, hidden, kv) && fits(b.o, q, hidden) &&
                fits(b.gate, hidden, inner) && fits(b.up, hidden, inner) && fits(b.down, inner, hidden) &&
                b.k_pages.rank() == 4 && b.k_pages.dim(1) == model.kv_heads && b.k_pages.dim(3) == model.head_dim &&
                b.v_pages.shape() == b.k_pages.shape(),
            "[decode_blocks] the weights of a block do not fit {} + 2 · {} heads of {} over {} features", model.heads,
            model.kv_heads, model.head_dim, hidden);
  }
  DecodeBlocksArgs args;
  args.model = &model;
  args.x = x.view();
  const Tensor y = ctx.empty(x.shape(), x.dtype());
  args.y = y.view();
  args.cos = table.cos.view(), args.sin = table.sin.view();
  args.slots = slots.view(), args.kv_len = rows.kv_len.view(), args.page_table = rows.page_table.view();
  return try_dispatch(ctx, decode_blocks_cuda, args) ? y : Tensor();
}

}  // namespace pmetal::ops
