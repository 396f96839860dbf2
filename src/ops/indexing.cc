// Gather and scatter, views, concatenation.
#include "ops/common.h"
#include "ops/elementwise.h"

namespace pmetal::ops {
namespace {

void run_index(Context& ctx, const Tensor& x, const Tensor& index, const Tensor& y, IndexCode op,
               bool accumulate = false) {
  dispatch(ctx, index_rows_cpu, index_rows_cuda, IndexArgs{x.view(), index.view(), y.view(), op, accumulate});
}

void check_index(const char* op, const Tensor& index) {
  require(index.rank() == 1 && index.dtype() == DType::kI32, "[{}] the index must be [n] i32, is {} {}", op,
          index.shape().to_string(), name_of(index.dtype()));
}

void check_matrix(const char* op, const Tensor& x) {
  require(x.rank() == 2, "[{}] x must be [rows, n], is {}", op, x.shape().to_string());
}

Tensor zeros(Context& ctx, const Shape& shape, DType dtype) {
  Tensor t = ctx.empty(shape, dtype);
  fill(ctx, t, 0);
  return t;
}

Tensor gathered(const char* op, Context& ctx, const Tensor& x, const Tensor& index) {
  check_matrix(op, x);
  check_index(op, index);
  Tensor y = ctx.empty({index.dim(0), x.dim(1)}, x.dtype());
  run_index(ctx, x, index, y, kGatherRows);
  return y;
}

}  // namespace

Tensor gather_columns(Context& ctx, const Tensor& x, const Tensor& index) {
  check_matrix("gather_columns", x);
  check_index("gather_columns", index);
  require(index.dim(0) == x.dim(0), "[gather_columns] x is {}, the index {}", x.shape().to_string(),
          index.shape().to_string());
  Tensor y = ctx.empty({x.dim(0)}, x.dtype());
  run_index(ctx, x, index, y, kGatherColumns);
  if (ctx.records({&x})) {
    const Tensor* inputs[] = {&x};
    Tensor* outputs[] = {&y};
    ctx.tape()->record(
        "gather_columns", inputs, outputs,
        [index, shape = x.shape(), dtype = x.dtype()](Context& c, std::span<const Tensor> grads, GradSink& sink) {
          Tensor dx = c.empty(shape, dtype);
          run_index(c, grads[0], index, dx, kScatterColumns);
          sink.add(0, dx);
        });
  }
  return y;
}

Tensor gather_rows(Context& ctx, const Tensor& x, const Tensor& index) {
  Tensor y = gathered("gather_rows", ctx, x, index);
  if (ctx.records({&x})) {
    const Tensor* inputs[] = {&x};
    Tensor* outputs[] = {&y};
    // rows that were gathered twice add up: in f32
    ctx.tape()->record(
        "gather_rows", inputs, outputs,
        [index, shape = x.shape(), dtype = x.dtype()](Context& c, std::span<const Tensor> grads, GradSink& sink) {
          Tensor dx = zeros(c, shape, wide(dtype));
          run_index(c, grads[0], index, dx, kScatterRows, true);
          sink.add(0, cast(c, dx, dtype));
        });
  }
  return y;
}

Tensor gather_distinct_rows(Context& ctx, const Tensor& x, const Tensor& index) {
  Tensor y = gathered("gather_distinct_rows", ctx, x, index);
  if (ctx.records({&x})) {
    const Tensor* inputs[] = {&x};
    Tensor* outputs[] = {&y};
    ctx.tape()->record("gather_distinct_rows", inputs, outputs,
                       [index, rows = x.dim(0)](Context& c, std::span<const Tensor> grads, GradSink& sink) {
                         sink.add(0, scatter_rows(c, grads[0], index, rows));
                       });
  }
  return y;
}

Tensor scatter_rows(Context& ctx, const Tensor& x, const Tensor& index, int64_t rows) {
  check_matrix("scatter_rows", x);
  check_index("scatter_rows", index);
  require(index.dim(0) == x.dim(0) && rows >= 0, "[scatter_rows] x is {}, the index {}, rows {}", x.shape().to_string(),
          index.shape().to_string(), rows);
  Tensor y = ctx.empty({rows, x.dim(1)}, x.dtype());
  run_index(ctx, x, index, y, kScatterRows);
  if (ctx.records({&x})) {
    const Tensor* inputs[] = {&x};
    Tensor* outputs[] = {&y};
    ctx.tape()->record(
        "scatter_rows", inputs, outputs,
        [index, shape = x.shape(), dtype = x.dtype()](Context& c, std::span<const Tensor> grads, GradSink& sink) {
          Tensor dx = c.empty(shape, dtype);
          run_index(c, grads[0], index, dx, kGatherRows);
          sink.add(0, dx);
        });
  }
  return y;
}

Tensor reshape(Context& ctx, const Tensor& x, Shape shape) {
  if (!x.is_contiguous()) return reshape(ctx, contiguous(ctx, x), shape);
  Tensor y = x.reshaped(shape);
  if (ctx.records({&x})) {
    const Tensor* inputs[] = {&x};
    Tensor* outputs[] = {&y};
    std::vector<Recompute> again;
    if (x.variable() && x.variable()->recompute)  // a view of what is not kept is not kept either
      again.push_back([saved = Saved(x), to = y.shape()](Context& c) { return saved.get(c).reshaped(to); });
    ctx.tape()->record(
        "reshape", inputs, outputs,
        [shape = x.shape()](Context& c, std::span<const Tensor> grads, GradSink& sink) {
          sink.add(0, contiguous(c, grads[0]).reshaped(shape));
        },
        std::move(again));
  }
  return y;
}

namespace {

using Map = Tensor (*)(Context&, const Tensor&, int64_t);
Tensor split(Context&, const Tensor& x, int64_t n) { return x.split_last(n); }
Tensor merge(Context& ctx, const Tensor& x, int64_t) {
  return x.can_merge_last() ? x.merged_last() : contiguous(ctx, x).merged_last();
}

// A view that the tape sees through: what makes x again makes y again, and where x's gradient may lie y's may.
Tensor viewed(Context& ctx, const char* name, const Tensor& x, int64_t n, Map there, Map back) {
  Tensor y = there(ctx, x.detached(), n);
  if (!ctx.records({&x})) return y;
  const Tensor* inputs[] = {&x};
  Tensor* outputs[] = {&y};
  std::vector<Recompute> again;
  if (x.variable()->recompute)
    again.push_back([saved = Saved(x), n, there](Context& c) { return there(c, saved.get(c), n); });
  ctx.tape()->record(
      name, inputs, outputs,
      [n, back](Context& c, std::span<const Tensor> grads, GradSink& sink) { sink.add(0, back(c, grads[0], n)); },
      std::move(again));
  if (x.variable()->place)
    y.variable()->place = [place = x.variable()->place, n, there](Context& c) {
      const Tensor t = place(c);
      return t.defined() ? there(c, t, n) : t;
    };
  return y;
}

}  // namespace

Tensor split_heads(Context& ctx, const Tensor& x, int64_t n) {
  check_matrix("split_heads", x);
  require(n > 0 && x.dim(1) % n == 0, "[split_heads] {} in {} parts", x.shape().to_string(), n);
  return viewed(ctx, "split_heads", x, n, split, merge);
}

Tensor merge_heads(Context& ctx, const Tensor& x) {
  require(x.rank() == 3, "[merge_heads] x must be [tokens, heads, d], is {}", x.shape().to_string());
  return viewed(ctx, "merge_heads", x, x.dim(1), merge, split);
}

Tensor narrow(Context& ctx, const Tensor& x, int dim, int64_t begin, int64_t length) {
  if (dim < 0) dim += x.rank();
  require(dim >= 0 && dim < x.rank() && begin >= 0 && length >= 0 && begin + length <= x.dim(dim),
          "[narrow] [{}, {}) of dimension {} of {}", begin, begin + length, dim, x.shape().to_string());
  Tensor y = x.narrowed(dim, begin, length);
  if (ctx.records({&x})) {
    const Tensor* inputs[] = {&x};
    Tensor* outputs[] = {&y};
    std::vector<Recompute> again;
    if (x.variable() && x.variable()->recompute)
      again.push_back(
          [saved = Saved(x), dim, begin, length](Context& c) { return saved.get(c).narrowed(dim, begin, length); });
    ctx.tape()->record(
        "narrow", inputs, outputs,
        [shape = x.shape(), dim, begin, length](Context& c, std::span<const Tensor> grads, GradSink& sink) {
          Tensor dx = zeros(c, shape, grads[0].dtype());
          copy(c, grads[0], dx.narrowed(dim, begin, length));
          sink.add(0, dx);
        },
        std::move(again));
  }
  return y;
}

namespace {

Tensor concat(Context& ctx, const char* name, std::span<const Tensor> parts, int dim) {
  require(!parts.empty(), "[{}] of nothing", name);
  Shape shape = parts[0].shape();
  shape[dim] = 0;
  bool records = false;
  for (const Tensor& part : parts) {
    require(part.rank() == 2 && part.dim(1 - dim) == shape[1 - dim] && part.dtype() == parts[0].dtype(),
            "[{}] the parts do not fit: {} {} and {} {}", name, parts[0].shape().to_string(), name_of(parts[0].dtype()),
            part.shape().to_string(), name_of(part.dtype()));
    shape[dim] += part.dim(dim);
    records |= ctx.records({&part});
  }
  Tensor y = ctx.empty(shape, parts[0].dtype());
  std::vector<int64_t> sizes;
  std::vector<const Tensor*> inputs;
  int64_t at = 0;
  for (const Tensor& part : parts) {
    copy(ctx, part, y.narrowed(dim, at, part.dim(dim)));
    at += part.dim(dim);
    sizes.push_back(part.dim(dim));
    inputs.push_back(&part);
  }
  if (records) {
    Tensor* outputs[] = {&y};
    ctx.tape()->record(name, inputs, outputs, [sizes, dim](Context&, std::span<const Tensor> grads, GradSink& sink) {
      int64_t at = 0;
      for (size_t i = 0; i < sizes.size(); ++i) {
        sink.add(static_cast<int>(i), grads[0].narrowed(dim, at, sizes[i]));
        at += sizes[i];
      }
    });
  }
  return y;
}

}  // namespace

Tensor concat_columns(Context& ctx, std::span<const Tensor> parts) { return concat(ctx, "concat_columns", parts, 1); }
Tensor concat_rows(Context& ctx, std::span<const Tensor> parts) { return concat(ctx, "concat_rows", parts, 0); }

}  // namespace pmetal::ops
