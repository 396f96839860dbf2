// Softmax, log-sum-exp and sums.
#include "ops/common.h"
#include "ops/elementwise.h"

namespace pmetal::ops {
namespace {

struct Kept {
  bool x = false, y = false;  // what the backward reads
};

// x as rows of its last dimension; y has `shape`
Tensor reduce(Context& ctx, const char* name, const Tensor& x, RowReduceCode op, const Shape& shape, DType dtype,
              Kept kept) {
  const Tensor rows = with_rows(ctx, x);
  Tensor y = ctx.empty(shape, dtype);
  RowReduceArgs args;
  args.x = as_rows(rows);
  args.y = op == kRowSoftmax || op == kRowLogSoftmax ? as_rows(y) : y.view();
  args.op = op;
  dispatch(ctx, row_reduce_cpu, row_reduce_cuda, args);
  if (ctx.records({&x})) {
    const Tensor* inputs[] = {&x};
    Tensor* outputs[] = {&y};
    const Saved sx = kept.x ? Saved(x) : Saved(), sy = kept.y ? Saved(y) : Saved();
    ctx.tape()->record(
        name, inputs, outputs,
        [sx, sy, op, shape = x.shape(), dtype = x.dtype()](Context& c, std::span<const Tensor> grads, GradSink& sink) {
          const bool full = op == kRowSoftmax || op == kRowLogSoftmax;
          const Tensor x = sx.defined() ? with_rows(c, sx.get(c)) : Tensor();
          const Tensor y = sy.defined() ? sy.get(c) : Tensor();
          const Tensor dy = full ? with_rows(c, grads[0]) : grads[0];
          Tensor dx = c.empty(shape, dtype);
          RowReduceArgs args;
          if (x) args.x = as_rows(x);
          if (y) args.y = full ? as_rows(y) : y.view();
          args.dy = full ? as_rows(dy) : dy.view();
          args.dx = as_rows(dx);
          args.op = op;
          dispatch(c, row_reduce_backward_cpu, row_reduce_backward_cuda, args);
          sink.add(0, dx);
        });
  }
  return y;
}

void check_rows(const char* op, const Tensor& x) {
  require(x.rank() == 2, "[{}] x must be [rows, n], is {}", op, x.shape().to_string());
}

}  // namespace

Tensor softmax(Context& ctx, const Tensor& x) {
  return reduce(ctx, "softmax", x, kRowSoftmax, x.shape(), x.dtype(), {.y = true});
}

Tensor log_softmax(Context& ctx, const Tensor& x) {
  return reduce(ctx, "log_softmax", x, kRowLogSoftmax, x.shape(), x.dtype(), {.y = true});
}

Tensor logsumexp(Context& ctx, const Tensor& x) {
  check_rows("logsumexp", x);
  return reduce(ctx, "logsumexp", x, kRowLogSumExp, {x.dim(0)}, wide(x.dtype()), {.x = true, .y = true});
}

Tensor sum_rows(Context& ctx, const Tensor& x) {
  check_rows("sum_rows", x);
  return reduce(ctx, "sum_rows", x, kRowSum, {x.dim(0)}, wide(x.dtype()), {});
}

Tensor sum(Context& ctx, const Tensor& x) { return reduce(ctx, "sum", x, kAllSum, {1}, wide(x.dtype()), {}); }

Tensor mean(Context& ctx, const Tensor& x) {
  require(x.numel() > 0, "[mean] of no elements: x is {}", x.shape().to_string());
  return affine(ctx, sum(ctx, x), 1.f / static_cast<float>(x.numel()));
}

}  // namespace pmetal::ops
