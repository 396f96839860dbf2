#include "ops/norm.h"

#include "ops/common.h"
#include "ops/elementwise.h"

namespace pmetal::ops {
namespace {

void check(const char* op, const Tensor& x, const Tensor& weight) {
  require(x.rank() >= 1 && weight.rank() == 1 && weight.dim(0) == x.dim(-1),
          "[{}] the weight {} does not fit the rows of x {}", op, weight.shape().to_string(), x.shape().to_string());
}

Tensor output(const Context& ctx, const Tensor& x, int64_t room) {
  return room > 0 && x.rank() == 2 ? ctx.empty_rows(x.dim(0), x.dim(1), x.dtype(), room)
                                   : ctx.empty(x.shape(), x.dtype());
}

// A GPU's kernel takes [tokens, heads, n] as it lies; others get evenly spaced rows.
bool takes_heads(const Context& ctx, const Tensor& x) {
  const bool is_gpu = ctx.device().is_cuda() || (ctx.planned() && ctx.planned()->is_cuda());
  return is_gpu && x.rank() == 3 && x.strides()[-1] == 1;
}
View rows_view(const Tensor& x, bool by_heads) { return by_heads ? x.view() : as_rows(x); }

Tensor normed(Context& ctx, const Tensor& x, const Tensor& weight, float eps, float offset, int64_t room = 0) {
  const bool by_heads = takes_heads(ctx, x) && !is_mergeable(x);
  const Tensor rows = by_heads ? x.detached() : with_rows(ctx, x);
  Tensor y = output(ctx, x, room);
  RmsNormArgs args;
  args.x = rows_view(rows, by_heads);
  args.weight = weight.view();
  args.y = rows_view(y, by_heads);
  args.eps = eps;
  args.offset = offset;
  dispatch(ctx, rms_norm_cpu, rms_norm_cuda, args);
  return y;
}

// dx (plus `more`, if defined) of y = norm(x) into `to`, if defined; the weight's gradient goes to `sink` as input
// `weight_input`
void backward(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& dy, const Tensor& more, float eps,
              float offset, const Tensor& to, GradSink& sink, int weight_input) {
  const bool is_even = is_mergeable(x) && is_mergeable(dy) && (!to || is_mergeable(to));
  const bool by_heads = !is_even && !more && takes_heads(ctx, x) && takes_heads(ctx, dy);
  const Tensor x_rows = by_heads ? x.detached() : with_rows(ctx, x),
               dy_rows = by_heads ? dy.detached() : with_rows(ctx, dy);
  RmsNormBackwardArgs args;
  args.x = rows_view(x_rows, by_heads);
  args.weight = weight.view();
  args.dy = rows_view(dy_rows, by_heads);
  args.eps = eps;
  args.offset = offset;
  Tensor more_rows, dweight;
  bool direct = false;
  if (to) {
    args.dx = rows_view(to, by_heads);
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
}

}  // namespace

Tensor rms_norm(Context& ctx, const Tensor& x, const Tensor& weight, float eps, float offset, int64_t room) {
  check("rms_norm", x, weight);
  Tensor y = normed(ctx, x, weight, eps, offset, room);
  if (ctx.records({&x, &weight})) {
    const Saved saved(x);
    const Tensor w = weight.detached();
    const Tensor* inputs[] = {&x, &weight};
    Tensor* outputs[] = {&y};
    ctx.tape()->record(
        "rms_norm", inputs, outputs,
        [saved, w, eps, offset](Context& c, std::span<const Tensor> grads, GradSink& sink) {
          const Tensor x = saved.get(c);
          Tensor dx = sink.place(0, x.shape(), x.dtype());
          if (!dx || (!is_mergeable(dx) && !(takes_heads(c, dx) && takes_heads(c, x) && takes_heads(c, grads[0]))))
            dx = sink.wants(0) ? c.empty_spread(x.shape(), x.dtype()) : Tensor();
          backward(c, x, w, grads[0], {}, eps, offset, dx, sink, 1);
          sink.add(0, dx);
        },
        {[saved, w, eps, offset](Context& c) { return normed(c, saved.get(c), w, eps, offset); }});
  }
  return y;
}

SumAndNorm add_rms_norm(Context& ctx, const Tensor& x, const Tensor& residual, const Tensor& weight, float eps,
                        float offset, int64_t room) {
  check("add_rms_norm", x, weight);
  require(x.shape() == residual.shape(), "[add_rms_norm] x is {}, the residual {}", x.shape().to_string(),
          residual.shape().to_string());
  SumAndNorm out;
  {
    const Tensor x_rows = with_rows(ctx, x), residual_rows = with_rows(ctx, residual);
    out.sum = ctx.empty(x.shape(), x.dtype());
    out.normed = output(ctx, x, room);
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
                         if (grads[1]) {
                           // one tensor for both; what x + residual came from wants it in a place of its own
                           dx = sink.place(1, sum.shape(), sum.dtype());
                           if (!dx) dx = sink.place(0, sum.shape(), sum.dtype());
                           if (!dx || !is_mergeable(dx))
                             dx = sink.wants(0) || sink.wants(1) ? c.empty_spread(sum.shape(), sum.dtype()) : Tensor();
                           backward(c, sum, w, grads[1], grads[0], eps, offset, dx, sink, 2);
                         }
                         sink.add(0, dx);
                         sink.add(1, dx);
                       },
                       {{}, [sum, w, eps, offset](Context& c) { return normed(c, sum, w, eps, offset); }});
  }
  return out;
}

}  // namespace pmetal::ops
