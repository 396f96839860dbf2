#include "ops/lora.h"

#include "ops/fused_cpu.h"
#include "ops/linear.h"

namespace pmetal::ops {
namespace {

// c = alpha · op(a) op(b) (+ c)
void multiply(Context& ctx, const Tensor& a, bool ta, const Tensor& b, bool tb, const Tensor& c, float alpha,
              bool add) {
  dispatch(ctx, matmul_cpu, matmul_cuda,
           MatmulArgs{.a = a.view(),
                      .b = b.view(),
                      .c = c.view(),
                      .transpose_a = ta,
                      .transpose_b = tb,
                      .accumulate = add,
                      .alpha = alpha});
}

// gradient of a parameter: straight into its flat buffer where it has one
void parameter_gradient(Context& ctx, GradSink& sink, int input, const Tensor& left, const Tensor& right,
                        const Shape& shape) {
  if (!sink.wants(input)) return;
  if (const Tensor to = sink.destination(input); to.defined()) {
    multiply(ctx, left, true, right, false, to.shape() == shape ? to : to.reshaped(shape), 1, true);
    return;
  }
  const Tensor g = ctx.empty(shape, left.dtype() == DType::kF64 ? DType::kF64 : DType::kF32);
  multiply(ctx, left, true, right, false, g, 1, false);
  sink.add(input, g);
}

// du = scale · dy · B and dB += dyᵀ · u, both from one pass over dy where a kernel does that
void low_gradients(Context& c, GradSink& sink, int input, const Tensor& dy, const Tensor& u, const Tensor& b,
                   const Tensor& du, float scale) {
  LowGradArgs args;
  args.m = dy.view(), args.alpha = scale;
  args.w = b.view(), args.out = du.view();
  const Tensor to = sink.destination(input);
  const bool direct = to.defined() && to.is_contiguous();
  if (direct) args.v = u.view(), args.g = to.reshaped(b.shape()).view();
  if (!run_fused(c, low_grad_cpu, args)) {
    multiply(c, dy, false, b, false, du, scale, false);
    return parameter_gradient(c, sink, input, dy, u, b.shape());
  }
  if (!direct) parameter_gradient(c, sink, input, dy, u, b.shape());
}

// dA += duᵀ · x
void low_input_gradient(Context& c, GradSink& sink, int input, const Tensor& du, const Tensor& x, const Shape& shape) {
  const Tensor to = sink.destination(input);
  if (to.defined() && to.is_contiguous()) {
    const Tensor as = to.reshaped(shape);
    LowGradArgs args;
    args.m = x.view(), args.v = du.view(), args.g = as.view(), args.g_is_turned = true;
    if (run_fused(c, low_grad_cpu, args)) return;
  }
  parameter_gradient(c, sink, input, du, x, shape);
}

LinearLowArgs low_args(const Tensor& x, const quant::Weight& weight, const Tensor& bias, const Tensor& low_x,
                       const Tensor& low_w, const Tensor& y, bool transposed, bool accumulate) {
  LinearLowArgs args;
  args.linear = {x.view(), &weight, bias ? bias.view() : View{}, y.view(), transposed, accumulate};
  args.low_x = low_x.view(), args.low_w = low_w.view();
  return args;
}

// y (+)= x · Wᵀ + low_x · low_wᵀ, or with `transposed` x · W + low_x · low_w; false where no kernel takes it
bool run_low(Context& ctx, const Tensor& x, const quant::Weight& weight, const Tensor& bias, const Tensor& low_x,
             const Tensor& low_w, const Tensor& y, bool transposed, bool accumulate) {
  return run_fused(ctx, linear_low_cpu, low_args(x, weight, bias, low_x, low_w, y, transposed, accumulate));
}

// dx = dy · W + du · A, added to what has come to x so far where that is possible
void input_gradient(Context& c, GradSink& sink, const Tensor& dy, const quant::Weight& weight, const Tensor& du,
                    const Tensor& a) {
  const Shape shape{dy.dim(0), weight.in};
  const Tensor sum = sink.sum_so_far(0, shape, dy.dtype());
  if (!sum.defined() && !sink.wants(0)) return;
  const Tensor dx = sum.defined() ? sum : c.empty_spread(shape[0], shape[1], dy.dtype());
  const bool done = run_low(c, dy, weight, {}, du, a, dx, true, sum.defined());
  PMETAL_ASSERT(done, "[linear_lora] forward, but not backward");
  if (!sum.defined()) sink.add(0, dx);
}

}  // namespace

bool has_linear_lora(Context& ctx, const Tensor& x, const quant::Weight& weight, const Tensor& bias, const Tensor& a) {
  if (bias.requires_grad()) return false;
  const auto rows = [&](int64_t n, int64_t columns) {  // what will be made
    return View{nullptr, x.dtype(), 2, {n, columns}, {columns, 1}};
  };
  LinearLowArgs args;
  args.linear = {x.view(), &weight, bias ? bias.view() : View{}, rows(x.dim(0), weight.out), false, false};
  args.low_x = rows(x.dim(0), a.dim(0)), args.low_w = rows(weight.out, a.dim(0));
  args.low_w.dtype = a.dtype();
  return fused_candidate(ctx, linear_low_cpu, args) != nullptr;
}

Tensor linear_lora(Context& ctx, const Tensor& x, const quant::Weight& weight, const Tensor& bias, const Tensor& x_low,
                   const Tensor& a, const Tensor& b, float scale) {
  PMETAL_ASSERT(x.rank() == 2 && a.rank() == 2 && b.rank() == 2 && a.dim(1) == x.dim(1) && b.dim(1) == a.dim(0) &&
                    b.dim(0) == weight.out && weight.in == x.dim(1) && x_low.shape() == x.shape(),
                "x {}, A {}, B {}", x.shape().to_string(), a.shape().to_string(), b.shape().to_string());
  if (!has_linear_lora(ctx, x, weight, bias, a)) return {};
  Tensor y = ctx.empty_spread(x.dim(0), weight.out, x.dtype());
  const Tensor u = ctx.empty({x.dim(0), a.dim(0)}, x.dtype());
  multiply(ctx, x_low, false, a, true, u, scale, false);
  run_low(ctx, x, weight, bias, u, b, y, false, false);
  if (!ctx.records({&x, &x_low, &a, &b})) return y;
  const bool is_same = x_low.variable() == x.variable();
  const Tensor* inputs[] = {&x, &x_low, &a, &b};
  Tensor* outputs[] = {&y};
  ctx.tape()->record(
      "linear_lora", inputs, outputs,
      [weight, x_low = Saved(x_low), u, a = a.detached(), b = b.detached(), scale, is_same](
          Context& c, std::span<const Tensor> g, GradSink& sink) {
        const Tensor& dy = g[0];
        const Tensor du = c.empty({dy.dim(0), a.dim(0)}, dy.dtype());
        low_gradients(c, sink, 3, dy, u, b, du, scale);
        if (sink.wants(2)) low_input_gradient(c, sink, 2, du, x_low.get(c), a.shape());
        if (is_same) return input_gradient(c, sink, dy, weight, du, a);
        if (sink.wants(1)) {
          const Tensor dx_low = c.empty({dy.dim(0), a.dim(1)}, dy.dtype());
          multiply(c, du, false, a, false, dx_low, 1, false);
          sink.add(1, dx_low);
        }
        if (sink.wants(0)) {
          const Tensor dx = c.empty({dy.dim(0), weight.in}, dy.dtype());
          dispatch(c, linear_cpu, linear_cuda, LinearArgs{dy.view(), &weight, {}, dx.view(), true, false});
          sink.add(0, dx);
        }
      });
  return y;
}

Tensor lora(Context& ctx, const Tensor& x, const Tensor& base, const Tensor& a, const Tensor& b, float scale) {
  PMETAL_ASSERT(x.rank() == 2 && a.rank() == 2 && b.rank() == 2 && a.dim(1) == x.dim(1) && b.dim(1) == a.dim(0) &&
                    b.dim(0) == base.dim(1) && base.dim(0) == x.dim(0),
                "x {}, base {}, A {}, B {}", x.shape().to_string(), base.shape().to_string(), a.shape().to_string(),
                b.shape().to_string());
  const Tensor u = ctx.empty({x.dim(0), a.dim(0)}, x.dtype());
  multiply(ctx, x, false, a, true, u, scale, false);
  Tensor y = base.detached();
  multiply(ctx, u, false, b, true, y, 1, true);
  if (!ctx.records({&x, &base, &a, &b})) return y;
  const Tensor* inputs[] = {&x, &base, &a, &b};
  Tensor* outputs[] = {&y};
  ctx.tape()->record("lora", inputs, outputs,
                     [x = Saved(x), u, a = a.detached(), b = b.detached(), scale](Context& c, std::span<const Tensor> g,
                                                                                  GradSink& sink) {
                       const Tensor& dy = g[0];
                       const Tensor du = c.empty({dy.dim(0), a.dim(0)}, dy.dtype());
                       multiply(c, dy, false, b, false, du, scale, false);
                       parameter_gradient(c, sink, 3, dy, u, b.shape());
                       if (sink.wants(2)) parameter_gradient(c, sink, 2, du, x.get(c), a.shape());
                       const Shape shape{dy.dim(0), a.dim(1)};
                       if (const Tensor sum = sink.sum_so_far(0, shape, dy.dtype())) {
                         multiply(c, du, false, a, false, sum, 1, true);
                       } else if (sink.wants(0)) {
                         const Tensor dx = c.empty(shape, dy.dtype());
                         multiply(c, du, false, a, false, dx, 1, false);
                         sink.add(0, dx);
                       }
                       sink.add(1, dy);
                     });
  return y;
}

}  // namespace pmetal::ops
