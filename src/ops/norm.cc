#include "ops/norm.h"

#include "ops/common.h"
#include "ops/elementwise.h"

namespace pmetal::ops {
namespace {

void check(const char* op, const Tensor& x, const Tensor& weight) {
  require(x.rank() >= 1 && weight.rank() == 1 && weight.dim(0) == x.dim(-1),
          "[{}] the weight {} does not fit the rows of x {}", op, weight.shape().to_string(), x.shape().to_string());
}

Tensor normed(Context& ctx, const Tensor& x, const Tensor& weight, float eps, float offset) {
  const Tensor rows = with_rows(ctx, x);
  Tensor y = ctx.empty(x.shape(), x.dtype());
  RmsNormArgs args;
  args.x = as_rows(rows);
  args.weight = weight.view();
  args.y = as_rows(y);
  args.eps = eps;
  args.offset = offset;
  dispatch(ctx, rms_norm_cpu, rms_norm_cuda, args);
  return y;
}

// dx (plus `more`, if defined) of y = norm(x); the weight's gradient goes to `sink` as input `weight_input`
Tensor backward(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& dy, const Tensor& more, float eps,
                float offset, bool want_dx, GradSink& sink, int weight_input) {
  const Tensor x_rows = with_rows(ctx, x), dy_rows = with_rows(ctx, dy);
  RmsNormBackwardArgs args;
  args.x = as_rows(x_rows);
  args.weight = weight.view();
  args.dy = as_rows(dy_rows);
  args.eps = eps;
  args.offset = offset;
  Tensor dx, more_rows, dweight;
  bool direct = false;
  if (want_dx) {
    dx = ctx.empty(x.shape(), x.dtype());
    args.dx = as_rows(dx);
    if (more) {
      more_rows = with_rows(ctx, more);
      args.dx_add = as_rows(more_rows);
    }
  }
  if (sink.wants(weight_input)) {
    dweight = sink.destination(weight_input);
    direct = dweight.defined() && dweight.is_contiguous();
    if (direct) {
      dweight = dweight.reshaped({x.dim(-1)});
    } else {
      dweight = ctx.empty({x.dim(-1)}, wide(x.dtype()));
      fill(ctx, dweight, 0);
    }
    args.dweight = dweight.view();
  }
  dispatch(ctx, rms_norm_backward_cpu, rms_norm_backward_cuda, args);
  if (dweight && !direct) sink.add(weight_input, dweight);
  return dx;
}

}  // namespace

Tensor rms_norm(Context& ctx, const Tensor& x, const Tensor& weight, float eps, float offset) {
  check("rms_norm", x, weight);
  Tensor y = normed(ctx, x, weight, eps, offset);
  if (ctx.records({&x, &weight})) {
    const Saved saved(x);
    const Tensor w = weight.detached();
    const Tensor* inputs[] = {&x, &weight};
    Tensor* outputs[] = {&y};
    ctx.tape()->record("rms_norm", inputs, outputs,
                       [saved, w, eps, offset](Context& c, std::span<const Tensor> grads, GradSink& sink) {
                         sink.add(0, backward(c, saved.get(c), w, grads[0], {}, eps, offset, sink.wants(0), sink, 1));
                       },
                       {[saved, w, eps, offset](Context& c) { return normed(c, saved.get(c), w, eps, offset); }});
  }
  return y;
}

SumAndNorm add_rms_norm(Context& ctx, const Tensor& x, const Tensor& residual, const Tensor& weight, float eps,
                        float offset) {
  check("add_rms_norm", x, weight);
  require(x.shape() == residual.shape(), "[add_rms_norm] x is {}, the residual {}", x.shape().to_string(),
          residual.shape().to_string());
  SumAndNorm out;
  {
    const Tensor x_rows = with_rows(ctx, x), residual_rows = with_rows(ctx, residual);
    out.sum = ctx.empty(x.shape(), x.dtype());
    out.normed = ctx.empty(x.shape(), x.dtype());
    RmsNormArgs args;
    args.x = as_rows(x_rows);
    args.residual = as_rows(residual_rows);
    args.weight = weight.view();
    args.sum = as_rows(out.sum);
    args.y = as_rows(out.normed);
    args.eps = eps;
    args.offset = offset;
    dispatch(ctx, rms_norm_cpu, rms_norm_cuda, args);
  }
  if (ctx.records({&x, &residual, &weight})) {
    const Tensor sum = out.sum, w = weight.detached();
    const Tensor* inputs[] = {&x, &residual, &weight};
    Tensor* outputs[] = {&out.sum, &out.normed};
    ctx.tape()->record("add_rms_norm", inputs, outputs,
                       [sum, w, eps, offset](Context& c, std::span<const Tensor> grads, GradSink& sink) {
                         Tensor dx = grads[0];
                         if (grads[1])
                           dx = backward(c, sum, w, grads[1], grads[0], eps, offset, sink.wants(0) || sink.wants(1),
                                         sink, 2);
                         sink.add(0, dx);
                         sink.add(1, dx);
                       },
                       {{}, [sum, w, eps, offset](Context& c) { return normed(c, sum, w, eps, offset); }});
  }
  return out;
}

}  // namespace pmetal::ops
