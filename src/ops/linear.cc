#include "ops/linear.h"

#include "ops/common.h"
#include "ops/elementwise.h"

namespace pmetal::ops {
namespace {

void run_linear(Context& ctx, const Tensor& x, const quant::Weight& weight, const Tensor& bias, const Tensor& y,
                bool transposed, bool accumulate = false) {
  LinearArgs args;
  args.x = x.view();
  args.weight = &weight;
  if (bias) args.bias = bias.view();
  args.y = y.view();
  args.transposed = transposed;
  args.accumulate = accumulate;
  dispatch(ctx, linear_cpu, linear_cuda, args);
}

void run_matmul(Context& ctx, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, const Tensor& c,
                bool accumulate = false, float alpha = 1) {
  dispatch(ctx, matmul_cpu, matmul_cuda,
           MatmulArgs{a.view(), b.view(), c.view(), transpose_a, transpose_b, accumulate, alpha});
}

void check_rows(const char* op, const Tensor& x, int64_t inner, int64_t out, int64_t in) {
  require(x.rank() == 2, "[{}] x must be [rows, features], is {}", op, x.shape().to_string());
  require(x.dim(1) == inner, "[{}] inner sizes differ: x is {}, the weight is [{}, {}]", op, x.shape().to_string(), out,
          in);
}

void check_bias(const char* op, const Tensor& bias, int64_t out) {
  if (bias)
    require(bias.rank() == 1 && bias.dim(0) == out, "[{}] the bias is {}, the weight has {} rows", op,
            bias.shape().to_string(), out);
}

// op(a)·op(b), a matrix of `shape`, added into the input's own gradient where that is a flat f32 buffer, else handed
// over as a tensor of shape `as`
void add_product(Context& ctx, GradSink& sink, int input, const Tensor& a, bool transpose_a, const Tensor& b,
                 bool transpose_b, const Shape& shape, DType dtype, float alpha, const Shape& as) {
  if (Tensor to = sink.destination(input); to && to.is_contiguous())
    return run_matmul(ctx, a, transpose_a, b, transpose_b, to.reshaped(shape), true, alpha);
  Tensor gradient = ctx.empty(shape, dtype);
  run_matmul(ctx, a, transpose_a, b, transpose_b, gradient, false, alpha);
  sink.add(input, gradient.reshaped(as));
}
void add_product(Context& ctx, GradSink& sink, int input, const Tensor& a, bool transpose_a, const Tensor& b,
                 bool transpose_b, const Shape& shape, DType dtype, float alpha = 1) {
  add_product(ctx, sink, input, a, transpose_a, b, transpose_b, shape, dtype, alpha, shape);
}

// sum over rows, as a product with ones: in order of the rows, on the best matmul
void add_column_sums(Context& ctx, GradSink& sink, int input, const Tensor& dy) {
  if (!sink.wants(input)) return;
  Tensor ones = ctx.empty({dy.dim(0), 1}, wide(dy.dtype()));
  fill(ctx, ones, 1);
  add_product(ctx, sink, input, ones, true, dy, false, {1, dy.dim(1)}, wide(dy.dtype()), 1, {dy.dim(1)});
}

// The weight that a dense tensor is, for the kernels of `linear`; undefined for f64, which has no format.
quant::Weight dense_weight(const Tensor& weight) {
  if (weight.dtype() == DType::kF64 || !weight.is_contiguous()) return {};
  quant::Weight w;
  w.format = &quant::format(name_of(weight.dtype()));
  w.out = weight.dim(0);
  w.in = weight.dim(1);
  w.planes.push_back({weight.buffer(), weight.dtype()});
  return w;
}

}  // namespace

Tensor linear(Context& ctx, const Tensor& x, const quant::Weight& weight, const Tensor& bias,
              std::optional<DType> out_dtype) {
  check_rows("linear", x, weight.in, weight.out, weight.in);
  check_bias("linear", bias, weight.out);
  Tensor y = ctx.empty({x.dim(0), weight.out}, out_dtype.value_or(x.dtype()));
  run_linear(ctx, x, weight, bias, y, false);
  if (ctx.records({&x, &bias})) {
    const Tensor* inputs[] = {&x, &bias};
    Tensor* outputs[] = {&y};
    ctx.tape()->record("linear", inputs, outputs,
                       [weight, dtype = x.dtype()](Context& c, std::span<const Tensor> grads, GradSink& sink) {
                         const Shape shape{grads[0].dim(0), weight.in};
                         if (Tensor sum = sink.sum_so_far(0, shape, dtype)) {
                           run_linear(c, grads[0], weight, {}, sum, true, true);
                         } else if (sink.wants(0)) {
                           Tensor dx = c.empty_spread(shape[0], shape[1], dtype);
                           run_linear(c, grads[0], weight, {}, dx, true);
                           sink.add(0, dx);
                         }
                         add_column_sums(c, sink, 1, grads[0]);
                       });
  }
  return y;
}

Tensor linear_transposed(Context& ctx, const Tensor& x, const quant::Weight& weight, std::optional<DType> out_dtype) {
  check_rows("linear_transposed", x, weight.out, weight.out, weight.in);
  Tensor y = ctx.empty({x.dim(0), weight.in}, out_dtype.value_or(x.dtype()));
  run_linear(ctx, x, weight, {}, y, true);
  if (ctx.records({&x})) {
    const Tensor* inputs[] = {&x};
    Tensor* outputs[] = {&y};
    ctx.tape()->record("linear_transposed", inputs, outputs,
                       [weight, dtype = x.dtype()](Context& c, std::span<const Tensor> grads, GradSink& sink) {
                         Tensor dx = c.empty({grads[0].dim(0), weight.out}, dtype);
                         run_linear(c, grads[0], weight, {}, dx, false);
                         sink.add(0, dx);
                       });
  }
  return y;
}

Tensor linear_dense(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& bias,
                    std::optional<DType> out_dtype) {
  require(weight.rank() == 2, "[linear_dense] the weight must be [out, in], is {}", weight.shape().to_string());
  check_rows("linear_dense", x, weight.dim(1), weight.dim(0), weight.dim(1));
  check_bias("linear_dense", bias, weight.dim(0));
  const quant::Weight dense = dense_weight(weight);
  Tensor y = ctx.empty({x.dim(0), weight.dim(0)}, out_dtype.value_or(x.dtype()));
  if (dense.defined()) {
    run_linear(ctx, x, dense, bias, y, false);
  } else {
    run_matmul(ctx, x, false, weight, true, y);
    if (bias) {
      BinaryArgs add{y.view(), bias.view(), y.view(), kBinaryAdd, false, 1};
      dispatch(ctx, binary_cpu, binary_cuda, add);
    }
  }
  if (ctx.records({&x, &weight, &bias})) {
    const Tensor* inputs[] = {&x, &weight, &bias};
    Tensor* outputs[] = {&y};
    // x is needed for the weight's gradient alone
    Saved saved = weight.requires_grad() ? Saved(x) : Saved();
    ctx.tape()->record("linear_dense", inputs, outputs,
                       [saved, weight = weight.detached(), dtype = x.dtype()](Context& c, std::span<const Tensor> grads,
                                                                              GradSink& sink) {
                         const Tensor& dy = grads[0];
                         if (sink.wants(0)) {
                           Tensor dx = c.empty({dy.dim(0), weight.dim(1)}, dtype);
                           if (const quant::Weight dense = dense_weight(weight); dense.defined())
                             run_linear(c, dy, dense, {}, dx, true);
                           else
                             run_matmul(c, dy, false, weight, false, dx);
                           sink.add(0, dx);
                         }
                         if (sink.wants(1))
                           add_product(c, sink, 1, dy, true, saved.get(c), false, weight.shape(), wide(weight.dtype()));
                         add_column_sums(c, sink, 2, dy);
                       });
  }
  return y;
}

Tensor matmul(Context& ctx, const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b, float alpha,
              std::optional<DType> out_dtype) {
  require(a.rank() == 2 && b.rank() == 2, "[matmul] both sides must be matrices: a is {}, b is {}",
          a.shape().to_string(), b.shape().to_string());
  const int64_t m = a.dim(transpose_a ? 1 : 0), n = b.dim(transpose_b ? 0 : 1);
  require(a.dim(transpose_a ? 0 : 1) == b.dim(transpose_b ? 1 : 0), "[matmul] inner sizes differ: a is {}{}, b is {}{}",
          a.shape().to_string(), transpose_a ? " transposed" : "", b.shape().to_string(),
          transpose_b ? " transposed" : "");
  Tensor c = ctx.empty({m, n}, out_dtype.value_or(a.dtype()));
  run_matmul(ctx, a, transpose_a, b, transpose_b, c, false, alpha);
  if (ctx.records({&a, &b})) {
    const Tensor* inputs[] = {&a, &b};
    Tensor* outputs[] = {&c};
    ctx.tape()->record("matmul", inputs, outputs,
                       [sa = b.requires_grad() ? Saved(a) : Saved(), sb = a.requires_grad() ? Saved(b) : Saved(),
                        transpose_a, transpose_b, alpha, a_shape = a.shape(), b_shape = b.shape(), a_dtype = a.dtype(),
                        b_dtype = b.dtype()](Context& c, std::span<const Tensor> grads, GradSink& sink) {
                         const Tensor& dy = grads[0];
                         if (sink.wants(0)) {
                           const Tensor b = sb.get(c);
                           if (transpose_a)  // a is [K, M]: da = op(b) · dyᵀ
                             add_product(c, sink, 0, b, transpose_b, dy, true, a_shape, a_dtype, alpha);
                           else
                             add_product(c, sink, 0, dy, false, b, !transpose_b, a_shape, a_dtype, alpha);
                         }
                         if (sink.wants(1)) {
                           const Tensor a = sa.get(c);
                           if (transpose_b)  // b is [N, K]: db = dyᵀ · op(a)
                             add_product(c, sink, 1, dy, true, a, transpose_a, b_shape, b_dtype, alpha);
                           else
                             add_product(c, sink, 1, a, !transpose_a, dy, false, b_shape, b_dtype, alpha);
                         }
                       });
  }
  return c;
}

const quant::Format& preferred_format(Device device, const quant::Format& dense) {
  return quant::format(device.is_cuda() ? preferred_format_cuda(dense) : preferred_format_cpu(dense));
}

}  // namespace pmetal::ops
