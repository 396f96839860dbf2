#include "ops/column_gradients.h"

#include "ops/elementwise.h"

namespace pmetal::ops {

Tensor ColumnGradients::all(Context& ctx) const {
  if (!*joint_) *joint_ = ctx.empty_rows(rows_, columns_, dtype_, room_);
  return *joint_;
}

Tensor ColumnGradients::gather(Context& ctx, std::span<const Tensor> grads, std::span<const int64_t> widths) const {
  const Tensor joint = all(ctx);
  int64_t column = 0;
  for (size_t i = 0; i < widths.size(); ++i) {
    const Tensor to = joint.narrowed(1, column, widths[i]);
    column += widths[i];
    if (!grads[i])
      fill(ctx, to, 0);
    else if (grads[i].bytes() != to.bytes() || grads[i].strides() != to.strides() || ctx.device().is_meta())
      copy(ctx, grads[i], to);
  }
  return joint;
}

void ColumnGradients::place(std::span<Tensor> outputs) const {
  int64_t column = 0;
  for (Tensor& t : outputs) {
    t.variable()->place = [self = *this, column, n = t.dim(1)](Context& c) {
      return self.all(c).narrowed(1, column, n);
    };
    column += t.dim(1);
  }
}

}  // namespace pmetal::ops
