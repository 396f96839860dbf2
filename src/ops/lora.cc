#include "ops/lora.h"

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

}  // namespace

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
