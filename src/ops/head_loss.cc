#include "ops/head_loss.h"

#include "ops/common.h"
#include "ops/elementwise.h"

namespace pmetal::ops {
namespace {

// gradient · upstream, where upstream is [1]
Tensor scaled(Context& ctx, const Tensor& gradient, const Tensor& upstream) {
  Tensor y = ctx.empty(gradient.shape(), gradient.dtype());
  View one = upstream.view(), flat = gradient.view(), out = y.view();
  for (View* v : {&flat, &out}) *v = View{v->data, v->dtype, 2, {1, gradient.numel()}, {gradient.numel(), 1}};
  one = View{one.data, one.dtype, 1, {1}, {1}};
  dispatch(ctx, binary_cpu, binary_cuda, BinaryArgs{flat, one, out, kBinaryMul, false, 2});
  return y;
}

}  // namespace

HeadLoss head_loss(Context& ctx, const Tensor& hidden, const quant::Weight* weight, const Tensor& dense,
                   const Tensor& labels, const Tensor& row_scale, const HeadLossOptions& options) {
  require((weight != nullptr) != dense.defined(), "[head_loss] wants a frozen or a trainable head, one of them");
  const int64_t vocabulary = weight ? weight->out : dense.dim(0), n = weight ? weight->in : dense.dim(1);
  require(hidden.rank() == 2 && hidden.dim(1) == n, "[head_loss] inner sizes differ: hidden is {}, the head [{}, {}]",
          hidden.shape().to_string(), vocabulary, n);
  const int64_t rows = hidden.dim(0);
  require(labels.numel() == rows && labels.dtype() == DType::kI32 && row_scale.numel() == rows,
          "[head_loss] {} rows with {} labels ({}) and {} scales", rows, labels.numel(), name_of(labels.dtype()),
          row_scale.numel());
  const DType real = wide(hidden.dtype());
  HeadLoss out;
  out.nll = ctx.empty({rows}, real);
  if (options.want_entropy) out.entropy = ctx.empty({rows}, real);
  out.correct = ctx.empty({rows}, DType::kU8);

  const bool records = ctx.records({&hidden, &dense});
  Tensor dhidden, dweight;
  HeadLossArgs args;
  args.hidden = hidden.view();
  args.weight = weight;
  if (dense) args.dense = dense.view();
  args.labels = labels.view();
  args.row_scale = row_scale.view();
  args.nll = out.nll.view();
  if (out.entropy) args.entropy = out.entropy.view();
  args.correct = out.correct.view();
  if (records && hidden.requires_grad()) {
    dhidden = ctx.empty(hidden.shape(), hidden.dtype());
    args.dhidden = dhidden.view();
  }
  if (records && dense.requires_grad()) {
    dweight = ctx.empty(dense.shape(), wide(dense.dtype()));
    fill(ctx, dweight, 0);
    args.dweight = dweight.view();
  }
  args.logit_scale = options.logit_scale;
  args.softcap = options.softcap;
  args.z_loss = options.z_loss;
  args.label_smoothing = options.label_smoothing;
  dispatch(ctx, head_loss_cpu, head_loss_cuda, args);

  {
    TapeScope off(ctx, nullptr);
    out.loss = sum(ctx, mul(ctx, out.nll, row_scale));
  }
  if (records) {
    const Tensor* inputs[] = {&hidden, &dense};
    Tensor* outputs[] = {&out.loss};
    ctx.tape()->record("head_loss", inputs, outputs,
                       [dhidden, dweight](Context& c, std::span<const Tensor> grads, GradSink& sink) {
                         if (dhidden) sink.add(0, scaled(c, dhidden, grads[0]));
                         if (dweight) sink.add(1, scaled(c, dweight, grads[0]));
                       });
  }
  return out;
}

}  // namespace pmetal::ops
