// Arithmetic, functions of one element, copies; the tape's accumulation.
#include "ops/elementwise.h"

#include <cstring>

#include "ops/common.h"
#include "ops/linear.h"

namespace pmetal::ops {
namespace {

void run_unary(Context& ctx, const View& x, const View& y, int op, float a = 0, float b = 0) {
  UnaryArgs args;
  args.x = x;
  args.y = y;
  args.op = op;
  args.a = a;
  args.b = b;
  dispatch(ctx, unary_cpu, unary_cuda, args);
}

Tensor unary_op(Context& ctx, const char* name, const Tensor& x, int op, float a = 0, float b = 0) {
  Tensor y = ctx.empty(x.shape(), x.dtype());
  run_unary(ctx, x.view(), y.view(), op, a, b);
  if (ctx.records({&x})) {
    const Tensor* inputs[] = {&x};
    Tensor* outputs[] = {&y};
    ctx.tape()->record(name, inputs, outputs,
                       [saved = Saved(x), op, a, b](Context& c, std::span<const Tensor> grads, GradSink& sink) {
                         const Tensor x = saved.get(c);
                         Tensor dx = c.empty(x.shape(), x.dtype());
                         UnaryArgs args;
                         args.x = x.view();
                         args.dy = grads[0].view();
                         args.dx = dx.view();
                         args.op = op;
                         args.a = a;
                         args.b = b;
                         dispatch(c, unary_backward_cpu, unary_backward_cuda, args);
                         sink.add(0, dx);
                       });
  }
  return y;
}

Tensor run_binary(Context& ctx, const Tensor& a, const Tensor& b, int op, int broadcast = 0) {
  Tensor y = ctx.empty(a.shape(), a.dtype());
  dispatch(ctx, binary_cpu, binary_cuda, BinaryArgs{a.view(), b.view(), y.view(), op, false, broadcast});
  return y;
}

void check_same(const char* op, const Tensor& a, const Tensor& b) {
  require(a.shape() == b.shape(), "[{}] shapes differ: a is {}, b is {}", op, a.shape().to_string(),
          b.shape().to_string());
}

Tensor binary_op(Context& ctx, const char* name, const Tensor& a, const Tensor& b, int op, Backward backward) {
  check_same(name, a, b);
  Tensor y = run_binary(ctx, a, b, op);
  if (ctx.records({&a, &b})) {
    const Tensor* inputs[] = {&a, &b};
    Tensor* outputs[] = {&y};
    ctx.tape()->record(name, inputs, outputs, std::move(backward));
  }
  return y;
}

// gradient of minimum (sign 1) and maximum (sign −1)
Backward choose_backward(const Tensor& a, const Tensor& b, bool min) {
  return [sa = Saved(a), sb = Saved(b), min](Context& c, std::span<const Tensor> grads, GradSink& sink) {
    const Tensor x = sa.get(c), y = sb.get(c);
    if (sink.wants(0))
      sink.add(0, run_binary(c, grads[0], run_binary(c, min ? x : y, min ? y : x, kBinaryLess), kBinaryMul));
    if (sink.wants(1))
      sink.add(1, run_binary(c, grads[0], run_binary(c, min ? y : x, min ? x : y, kBinaryLess), kBinaryMul));
  };
}

// Σ over rows of g [rows, n]
Tensor column_sums(Context& ctx, const Tensor& g) {
  Tensor ones = ctx.empty({g.dim(0), 1}, wide(g.dtype()));
  fill(ctx, ones, 1);
  Tensor sums = ctx.empty({1, g.dim(1)}, wide(g.dtype()));
  dispatch(ctx, matmul_cpu, matmul_cuda, MatmulArgs{ones.view(), g.view(), sums.view(), true, false, false, 1});
  return sums.reshaped({g.dim(1)});
}

Tensor row_sums(Context& ctx, const Tensor& g) {
  Tensor sums = ctx.empty({g.dim(0)}, wide(g.dtype()));
  RowReduceArgs args;
  args.x = g.view();
  args.y = sums.view();
  args.op = kRowSum;
  dispatch(ctx, row_reduce_cpu, row_reduce_cuda, args);
  return sums;
}

void check_vector(const char* op, const Tensor& x, const Tensor& v, int dim) {
  require(x.rank() == 2 && v.rank() == 1 && v.dim(0) == x.dim(dim), "[{}] x is {}, the vector {}", op,
          x.shape().to_string(), v.shape().to_string());
}

}  // namespace

Tensor with_rows(Context& ctx, const Tensor& t) {
  if (is_mergeable(t)) return t;
  Tensor copied = ctx.empty(t.shape(), t.dtype());
  copy(ctx, t, copied);
  return copied;
}

Tensor add(Context& ctx, const Tensor& a, const Tensor& b) {
  return binary_op(ctx, "add", a, b, kBinaryAdd, [](Context&, std::span<const Tensor> grads, GradSink& sink) {
    sink.add(0, grads[0]);
    sink.add(1, grads[0]);
  });
}

Tensor sub(Context& ctx, const Tensor& a, const Tensor& b) {
  return binary_op(ctx, "sub", a, b, kBinarySub, [](Context& c, std::span<const Tensor> grads, GradSink& sink) {
    sink.add(0, grads[0]);
    if (sink.wants(1)) sink.add(1, affine(c, grads[0], -1));
  });
}

Tensor mul(Context& ctx, const Tensor& a, const Tensor& b) {
  return binary_op(ctx, "mul", a, b, kBinaryMul,
                   [sa = b.requires_grad() ? Saved(a) : Saved(), sb = a.requires_grad() ? Saved(b) : Saved()](
                       Context& c, std::span<const Tensor> grads, GradSink& sink) {
                     if (sink.wants(0)) sink.add(0, run_binary(c, grads[0], sb.get(c), kBinaryMul));
                     if (sink.wants(1)) sink.add(1, run_binary(c, grads[0], sa.get(c), kBinaryMul));
                   });
}

Tensor div(Context& ctx, const Tensor& a, const Tensor& b) {
  return binary_op(ctx, "div", a, b, kBinaryDiv,
                   [sa = Saved(a), sb = Saved(b)](Context& c, std::span<const Tensor> grads, GradSink& sink) {
                     const Tensor d = sb.get(c), da = run_binary(c, grads[0], d, kBinaryDiv);
                     sink.add(0, da);
                     if (sink.wants(1)) {  // −dy · (a / b) / b
                       const Tensor ratio = run_binary(c, sa.get(c), d, kBinaryDiv);
                       sink.add(1, affine(c, run_binary(c, da, ratio, kBinaryMul), -1));
                     }
                   });
}

Tensor minimum(Context& ctx, const Tensor& a, const Tensor& b) {
  return binary_op(ctx, "minimum", a, b, kBinaryMin, choose_backward(a, b, true));
}

Tensor maximum(Context& ctx, const Tensor& a, const Tensor& b) {
  return binary_op(ctx, "maximum", a, b, kBinaryMax, choose_backward(a, b, false));
}

Tensor affine(Context& ctx, const Tensor& x, float scale, float shift) {
  Tensor y = ctx.empty(x.shape(), x.dtype());
  run_unary(ctx, x.view(), y.view(), kUnaryAffine, scale, shift);
  if (ctx.records({&x})) {
    const Tensor* inputs[] = {&x};
    Tensor* outputs[] = {&y};
    ctx.tape()->record("affine", inputs, outputs, [scale](Context& c, std::span<const Tensor> grads, GradSink& sink) {
      sink.add(0, scale == 1 ? grads[0] : affine(c, grads[0], scale));
    });
  }
  return y;
}

Tensor add_row(Context& ctx, const Tensor& x, const Tensor& row) {
  check_vector("add_row", x, row, 1);
  Tensor y = run_binary(ctx, x, row, kBinaryAdd, 1);
  if (ctx.records({&x, &row})) {
    const Tensor* inputs[] = {&x, &row};
    Tensor* outputs[] = {&y};
    ctx.tape()->record("add_row", inputs, outputs, [](Context& c, std::span<const Tensor> grads, GradSink& sink) {
      sink.add(0, grads[0]);
      if (sink.wants(1)) sink.add(1, column_sums(c, grads[0]));
    });
  }
  return y;
}

Tensor mul_row(Context& ctx, const Tensor& x, const Tensor& row) {
  check_vector("mul_row", x, row, 1);
  Tensor y = run_binary(ctx, x, row, kBinaryMul, 1);
  if (ctx.records({&x, &row})) {
    const Tensor* inputs[] = {&x, &row};
    Tensor* outputs[] = {&y};
    ctx.tape()->record("mul_row", inputs, outputs,
                       [sx = row.requires_grad() ? Saved(x) : Saved(), row = row.detached()](
                           Context& c, std::span<const Tensor> grads, GradSink& sink) {
                         if (sink.wants(0)) sink.add(0, run_binary(c, grads[0], row, kBinaryMul, 1));
                         if (sink.wants(1)) sink.add(1, column_sums(c, run_binary(c, grads[0], sx.get(c), kBinaryMul)));
                       });
  }
  return y;
}

Tensor mul_column(Context& ctx, const Tensor& x, const Tensor& column) {
  check_vector("mul_column", x, column, 0);
  Tensor y = run_binary(ctx, x, column, kBinaryMul, 2);
  if (ctx.records({&x, &column})) {
    const Tensor* inputs[] = {&x, &column};
    Tensor* outputs[] = {&y};
    ctx.tape()->record("mul_column", inputs, outputs,
                       [sx = column.requires_grad() ? Saved(x) : Saved(), sc = Saved(column)](
                           Context& c, std::span<const Tensor> grads, GradSink& sink) {
                         if (sink.wants(0)) sink.add(0, run_binary(c, grads[0], sc.get(c), kBinaryMul, 2));
                         if (sink.wants(1)) sink.add(1, row_sums(c, run_binary(c, grads[0], sx.get(c), kBinaryMul)));
                       });
  }
  return y;
}

Tensor unary(Context& ctx, const Tensor& x, Unary op) { return unary_op(ctx, "unary", x, static_cast<int>(op)); }

Tensor clamp(Context& ctx, const Tensor& x, float low, float high) {
  require(low <= high, "[clamp] the lower bound {} is above the upper {}", low, high);
  return unary_op(ctx, "clamp", x, kUnaryClamp, low, high);
}

Tensor cast(Context& ctx, const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  const auto run = [dtype](Context& c, const Tensor& from) {
    Tensor to = c.empty(from.shape(), dtype);
    copy(c, from, to);
    return to;
  };
  Tensor y = run(ctx, x);
  if (ctx.records({&x})) {
    const Tensor* inputs[] = {&x};
    Tensor* outputs[] = {&y};
    ctx.tape()->record("cast", inputs, outputs,
                       [dtype = x.dtype()](Context& c, std::span<const Tensor> grads, GradSink& sink) {
                         sink.add(0, cast(c, grads[0], dtype));
                       },
                       {[saved = Saved(x), run](Context& c) { return run(c, saved.get(c)); }});
  }
  return y;
}

Tensor stop_gradient(const Tensor& x) { return x.detached(); }

Tensor dropout(Context& ctx, const Tensor& x, float p, const DropoutKey& key, const Tensor& row_ids) {
  require(p >= 0 && p < 1, "[dropout] p must lie in [0, 1), is {}", p);
  if (p == 0) return x;
  require(x.rank() == 2 && row_ids.defined() && row_ids.dtype() == DType::kI64 && row_ids.numel() == x.dim(0),
          "[dropout] x is {}: one i64 row id per row is needed", x.shape().to_string());
  const auto run = [p, key, row_ids](Context& c, const Tensor& from) {
    Tensor to = c.empty(from.shape(), from.dtype());
    dispatch(c, dropout_cpu, dropout_cuda,
             DropoutArgs{from.view(), to.view(), row_ids.view(), p, key.seed, key.module, key.step,
                         key.step_at ? key.step_at.view() : View{}});
    return to;
  };
  Tensor y = run(ctx, x);
  if (ctx.records({&x})) {
    const Tensor* inputs[] = {&x};
    Tensor* outputs[] = {&y};
    ctx.tape()->record(
        "dropout", inputs, outputs,
        [run](Context& c, std::span<const Tensor> grads, GradSink& sink) { sink.add(0, run(c, grads[0])); },
        {[saved = Saved(x), run](Context& c) { return run(c, saved.get(c)); }});
  }
  return y;
}

void fill(Context& ctx, const Tensor& x, double value) {
  const float high = static_cast<float>(value);
  const double rest = value - static_cast<double>(high);
  run_unary(ctx, {}, x.view(), kUnaryFill, high, rest == rest ? static_cast<float>(rest) : 0.f);  // inf − inf
}

void copy(Context& ctx, const Tensor& from, const Tensor& to) {
  check_same("copy", from, to);
  run_unary(ctx, from.view(), to.view(), kUnaryCopy);
}

void accumulate(Context& ctx, const Tensor& to, const Tensor& value) {
  if (!value.defined()) return fill(ctx, to, 0);
  check_same("accumulate", to, value);
  dispatch(ctx, binary_cpu, binary_cuda, BinaryArgs{to.view(), value.view(), to.view(), kBinaryAdd, false, 0});
}

Tensor contiguous(Context& ctx, const Tensor& x) {
  if (x.is_contiguous()) return x;
  Tensor y = ctx.empty(x.shape(), x.dtype());
  copy(ctx, x, y);
  if (ctx.records({&x})) {
    const Tensor* inputs[] = {&x};
    Tensor* outputs[] = {&y};
    ctx.tape()->record("contiguous", inputs, outputs,
                       [](Context&, std::span<const Tensor> grads, GradSink& sink) { sink.add(0, grads[0]); });
  }
  return y;
}

Tensor to_device(Context& ctx, const Tensor& x) {
  if (x.device() == ctx.device()) return x;
  if (ctx.device().is_meta()) return x;  // kernels ask borders and lengths for their workspace
  require(x.device().is_cpu() && x.is_contiguous(), "[to_device] takes a contiguous host tensor, got {} on {}",
          x.shape().to_string(), to_string(x.device()));
  Tensor y = ctx.empty(x.shape(), x.dtype());
  dispatch(ctx, transfer_cpu, transfer_cuda, TransferArgs{x.bytes(), y.bytes(), x.size_bytes(), false});
  return y;
}

void upload(Context& ctx, const Tensor& host, const Tensor& to) {
  require(host.device().is_cpu() && host.is_contiguous() && to.is_contiguous() && host.shape() == to.shape() &&
              host.dtype() == to.dtype() && to.device() == ctx.device(),
          "[upload] {} {} does not go to {} {}", host.shape().to_string(), name_of(host.dtype()),
          to.shape().to_string(), name_of(to.dtype()));
  if (to.device().is_cpu()) return copy(ctx, host, to);
  dispatch(ctx, transfer_cpu, transfer_cuda, TransferArgs{host.bytes(), to.bytes(), host.size_bytes(), false});
}

Tensor to_host(Context& ctx, const Tensor& x) {
  if (x.device().is_cpu() && x.is_contiguous()) return x;
  const Tensor from = contiguous(ctx, x.detached());
  if (x.device().is_cpu()) return from;
  Tensor y(allocate_host(x.size_bytes()), x.shape(), x.dtype());
  if (x.device().is_meta()) {
    std::memset(y.bytes(), 0, static_cast<size_t>(y.size_bytes()));  // there are no values
    return y;
  }
  dispatch(ctx, transfer_cpu, transfer_cuda, TransferArgs{from.bytes(), y.bytes(), x.size_bytes(), true});
  return y;
}

float item(Context& ctx, const Tensor& x) {
  require(x.numel() == 1, "[item] wants one element, x is {}", x.shape().to_string());
  const Tensor host = to_host(ctx, x);
  float value = 0;
  convert(host.bytes(), host.dtype(), &value, DType::kF32, 1);
  return value;
}

}  // namespace pmetal::ops
