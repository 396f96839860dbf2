#include "ops/joined_linear.h"

#include "ops/column_gradients.h"
#include "ops/common.h"
#include "ops/elementwise.h"
#include "ops/linear.h"

namespace pmetal::ops {
namespace {

void multiply(Context& ctx, const Tensor& a, bool ta, const Tensor& b, bool tb, const Tensor& c, bool add = false) {
  dispatch(ctx, matmul_cpu, matmul_cuda, MatmulArgs{a.view(), b.view(), c.view(), ta, tb, add, 1});
}

// tensors [n_i, in] that follow each other without a gap
bool follow(std::span<const Tensor> tensors) {
  const Tensor& first = tensors[0];
  const std::byte* at = first.defined() ? first.bytes() : nullptr;
  for (const Tensor& t : tensors) {
    if (!t.defined() || t.rank() != 2 || !t.is_contiguous() || t.dtype() != first.dtype() || t.dim(1) != first.dim(1) ||
        t.bytes() != at)
      return false;
    at += t.size_bytes();
  }
  return at != nullptr;
}

Tensor joined(std::span<const Tensor> tensors) {
  int64_t rows = 0;
  for (const Tensor& t : tensors) rows += t.dim(0);
  return Tensor(tensors[0].buffer(), {rows, tensors[0].dim(1)}, tensors[0].dtype());
}

std::vector<Tensor> gradients_of(std::span<const Tensor> weights) {
  std::vector<Tensor> all;
  for (const Tensor& w : weights) all.push_back(w.variable() ? w.variable()->grad : Tensor());
  return all;
}

}  // namespace

Tensor joined_weights(std::span<const Tensor> weights) {
  if (weights.size() < 2 || !follow(weights)) return {};
  for (const Tensor& w : weights)
    if (w.requires_grad() && !w.variable()->is_leaf) return {};
  if (weights[0].requires_grad() && !follow(gradients_of(weights))) return {};
  return joined(weights);
}

std::vector<Tensor> joined_linear(Context& ctx, const Tensor& x, std::span<const Tensor> weights) {
  const Tensor w = joined_weights(weights);
  require(w.defined() && x.rank() == 2 && x.dim(1) == w.dim(1) && x.dtype() == w.dtype(),
          "[joined_linear] x is {} {}, the {} weights do not lie one below the other for it", x.shape().to_string(),
          name_of(x.dtype()), weights.size());
  const int64_t rows = x.dim(0), n = w.dim(0);
  const Tensor y = ctx.empty({rows, n}, x.dtype());
  multiply(ctx, x, false, w, true, y);
  std::vector<Tensor> out;
  for (int64_t column = 0; const Tensor& t : weights) {
    out.push_back(y.narrowed(1, column, t.dim(0)));
    column += t.dim(0);
  }
  std::vector<const Tensor*> inputs{&x};
  std::vector<Tensor*> outputs;
  bool records = ctx.records({&x}), trains = false;
  for (const Tensor& t : weights) {
    inputs.push_back(&t);
    trains |= ctx.records({&t});
  }
  records |= trains;
  if (!records) return out;
  for (Tensor& t : out) outputs.push_back(&t);

  const ColumnGradients side_by_side(rows, n, x.dtype());
  const Tensor dw = trains ? joined(gradients_of(weights)) : Tensor();
  std::vector<int64_t> columns;
  for (const Tensor& t : weights) columns.push_back(t.dim(0));
  ctx.tape()->record("joined_linear", inputs, outputs,
                     [saved = trains ? Saved(x) : Saved(), w, dw, side_by_side, columns](
                         Context& c, std::span<const Tensor> grads, GradSink& sink) {
                       const Tensor dy = side_by_side.gather(c, grads, columns);
                       if (sink.wants(0)) {
                         const Tensor dx = sink.empty_for(0, {dy.dim(0), w.dim(1)}, dy.dtype());
                         multiply(c, dy, false, w, false, dx);
                         sink.add(0, dx);
                       }
                       if (dw) multiply(c, dy, true, saved.get(c), false, dw, true);
                     });
  side_by_side.place(out);
  return out;
}

}  // namespace pmetal::ops
