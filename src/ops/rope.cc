#include "ops/rope.h"

#include "ops/common.h"

namespace pmetal::ops {
namespace {

Tensor turned(Context& ctx, const Tensor& x, const RopeTable& table, bool interleaved, bool inverse, Tensor y = {}) {
  if (!y) y = ctx.empty_spread_heads(x.shape(), x.dtype());
  dispatch(ctx, rope_cpu, rope_cuda,
           RopeArgs{x.view(), y.view(), table.cos.view(), table.sin.view(), interleaved, inverse});
  return y;
}

}  // namespace

RopeTable rope_table(Context& ctx, const Tensor& positions, const Tensor& inv_freq, float scale, DType dtype) {
  require(positions.rank() == 1 && inv_freq.rank() == 1 && positions.dtype() == DType::kI32,
          "[rope_table] positions must be [tokens] i32 and inv_freq [n]: they are {} {} and {}",
          positions.shape().to_string(), name_of(positions.dtype()), inv_freq.shape().to_string());
  RopeTable table;
  table.cos = ctx.empty({positions.dim(0), inv_freq.dim(0)}, wide(dtype));
  table.sin = ctx.empty({positions.dim(0), inv_freq.dim(0)}, wide(dtype));
  dispatch(ctx, rope_table_cpu, rope_table_cuda,
           RopeTableArgs{positions.view(), inv_freq.view(), table.cos.view(), table.sin.view(), scale});
  return table;
}

Tensor rope(Context& ctx, const Tensor& x, const RopeTable& table, bool interleaved) {
  require(x.rank() == 3, "[rope] x must be [tokens, heads, head_dim], is {}", x.shape().to_string());
  require(x.dim(0) == table.cos.dim(0) && 2 * table.cos.dim(1) <= x.dim(2), "[rope] the table {} does not fit x {}",
          table.cos.shape().to_string(), x.shape().to_string());
  Tensor y = turned(ctx, x, table, interleaved, false);
  if (ctx.records({&x})) {
    const Tensor* inputs[] = {&x};
    Tensor* outputs[] = {&y};
    ctx.tape()->record("rope", inputs, outputs,
                       [table, interleaved](Context& c, std::span<const Tensor> grads, GradSink& sink) {
                         const Tensor to = sink.place(0, grads[0].shape(), grads[0].dtype());
                         sink.add(0, turned(c, grads[0], table, interleaved, true, to));
                       },
                       {[saved = Saved(x), table, interleaved](Context& c) {
                         return turned(c, saved.get(c), table, interleaved, false);
                       }});
  }
  return y;
}

}  // namespace pmetal::ops
