#include "ops/head_loss.h"

#include "ops/common.h"
#include "ops/elementwise.h"
#include "ops/linear.h"

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

void check(const char* op, const Tensor& hidden, const quant::Weight* weight, const Tensor& dense) {
  require((weight != nullptr) != dense.defined(), "[{}] wants a frozen or a trainable head, one of them", op);
  const int64_t vocabulary = weight ? weight->out : dense.dim(0), n = weight ? weight->in : dense.dim(1);
  require(hidden.rank() == 2 && hidden.dim(1) == n, "[{}] inner sizes differ: hidden is {}, the head [{}, {}]", op,
          hidden.shape().to_string(), vocabulary, n);
}

struct Gradients {
  Tensor hidden, dense;
};

Gradients empty_gradients(Context& ctx, const Tensor& hidden, const Tensor& dense, bool want_hidden, bool want_dense) {
  Gradients g;
  if (want_hidden) g.hidden = ctx.empty(hidden.shape(), hidden.dtype());
  if (want_dense) {
    g.dense = ctx.empty(dense.shape(), wide(dense.dtype()));
    fill(ctx, g.dense, 0);
  }
  return g;
}

// one pass of the kernel; undefined gradients are not computed
void run(Context& ctx, const Tensor& hidden, const quant::Weight* weight, const Tensor& dense, const Tensor& labels,
         const Tensor& row_scale, const HeadLossOptions& options, const HeadLoss& out, const Gradients& gradients) {
  HeadLossArgs args;
  args.hidden = hidden.view();
  args.weight = weight;
  if (dense) args.dense = dense.view();
  args.labels = labels.view();
  args.row_scale = row_scale.view();
  args.nll = out.nll.view();
  if (out.entropy) args.entropy = out.entropy.view();
  if (out.correct) args.correct = out.correct.view();
  if (gradients.hidden) args.dhidden = gradients.hidden.view();
  if (gradients.dense) args.dweight = gradients.dense.view();
  args.logit_scale = options.logit_scale;
  args.softcap = options.softcap;
  args.z_loss = options.z_loss;
  args.label_smoothing = options.label_smoothing;
  dispatch(ctx, head_loss_cpu, head_loss_cuda, args);
}

void check_labels(const char* op, const Tensor& hidden, const Tensor& labels) {
  require(labels.numel() == hidden.dim(0) && labels.dtype() == DType::kI32, "[{}] {} rows with {} labels ({})", op,
          hidden.dim(0), labels.numel(), name_of(labels.dtype()));
}

// records `out` with gradients that wait for the upstream scalar
void record_scaled(Context& ctx, const char* op, const Tensor& hidden, const Tensor& dense, Tensor& out,
                   const Gradients& gradients) {
  const Tensor* inputs[] = {&hidden, &dense};
  Tensor* outputs[] = {&out};
  ctx.tape()->record(op, inputs, outputs, [gradients](Context& c, std::span<const Tensor> grads, GradSink& sink) {
    if (gradients.hidden) sink.add(0, scaled(c, gradients.hidden, grads[0]));
    if (gradients.dense) sink.add(1, scaled(c, gradients.dense, grads[0]));
  });
}

}  // namespace

HeadLoss head_loss(Context& ctx, const Tensor& hidden, const quant::Weight* weight, const Tensor& dense,
                   const Tensor& labels, const Tensor& row_scale, const HeadLossOptions& options) {
  check("head_loss", hidden, weight, dense);
  check_labels("head_loss", hidden, labels);
  const int64_t rows = hidden.dim(0);
  require(row_scale.numel() == rows, "[head_loss] {} rows with {} scales", rows, row_scale.numel());
  const DType real = wide(hidden.dtype());
  HeadLoss out;
  out.nll = ctx.empty({rows}, real);
  if (options.want_entropy) out.entropy = ctx.empty({rows}, real);
  out.correct = ctx.empty({rows}, DType::kU8);
  const bool records = ctx.records({&hidden, &dense});
  const Gradients gradients =
      empty_gradients(ctx, hidden, dense, records && hidden.requires_grad(), records && dense.requires_grad());
  run(ctx, hidden, weight, dense, labels, row_scale, options, out, gradients);
  {
    TapeScope off(ctx, nullptr);
    out.loss = sum(ctx, mul(ctx, out.nll, row_scale));
  }
  if (records) record_scaled(ctx, "head_loss", hidden, dense, out.loss, gradients);
  return out;
}

TokenLogprobs token_logprobs(Context& ctx, const Tensor& hidden, const quant::Weight* weight, const Tensor& dense,
                             const Tensor& labels, const HeadLossOptions& options) {
  check("token_logprobs", hidden, weight, dense);
  check_labels("token_logprobs", hidden, labels);
  require(options.z_loss == 0 && options.label_smoothing == 0,
          "[token_logprobs] z_loss {} and label_smoothing {} belong to head_loss", options.z_loss,
          options.label_smoothing);
  const int64_t rows = hidden.dim(0);
  const DType real = wide(hidden.dtype());
  HeadLoss forward{{}, ctx.empty({rows}, real), ctx.empty({rows}, real), ctx.empty({rows}, DType::kU8)};
  run(ctx, hidden, weight, dense, labels, forward.nll, options, forward, {});  // without gradients no scale is read
  TokenLogprobs out{{}, forward.entropy, forward.correct};
  {
    TapeScope off(ctx, nullptr);
    out.logprobs = affine(ctx, forward.nll, -1);
  }
  if (ctx.records({&hidden, &dense})) {
    const Tensor* inputs[] = {&hidden, &dense};
    Tensor* outputs[] = {&out.logprobs};
    const quant::Weight frozen = weight ? *weight : quant::Weight{};
    ctx.tape()->record("token_logprobs", inputs, outputs,
                       [saved = Saved(hidden), frozen, dense = dense.detached(), labels, options](
                           Context& c, std::span<const Tensor> grads, GradSink& sink) {
                         const Tensor hidden = saved.get(c);
                         const Gradients gradients = empty_gradients(c, hidden, dense, sink.wants(0), sink.wants(1));
                         const HeadLoss again{{}, c.empty({hidden.dim(0)}, wide(hidden.dtype())), {}, {}};
                         run(c, hidden, frozen.defined() ? &frozen : nullptr, dense, labels, affine(c, grads[0], -1),
                             options, again, gradients);
                         sink.add(0, gradients.hidden);
                         sink.add(1, gradients.dense);
                       });
  }
  return out;
}

Tensor head_chunks(Context& ctx, const Tensor& hidden, const quant::Weight* weight, const Tensor& dense,
                   const HeadLossOptions& options, const LogitLoss& loss) {
  constexpr int64_t kLogitBytes = 32 << 20;  // of one chunk; the loss makes a few more of that size
  check("head_chunks", hidden, weight, dense);
  const int64_t rows = hidden.dim(0), vocabulary = weight ? weight->out : dense.dim(0);
  const int64_t chunk = std::clamp<int64_t>(kLogitBytes / 4 / std::max<int64_t>(1, vocabulary), 1, 512);
  const DType real = wide(hidden.dtype());
  const bool records = ctx.records({&hidden, &dense});
  const Gradients gradients =
      empty_gradients(ctx, hidden, dense, records && hidden.requires_grad(), records && dense.requires_grad());
  Tensor total = ctx.empty({1}, real);
  fill(ctx, total, 0);
  {
    TapeScope off(ctx, nullptr);
    for (int64_t first = 0; first < rows; first += chunk) {
      const Tensor part = hidden.narrowed(0, first, std::min(chunk, rows - first));
      Tensor raw = weight ? linear(ctx, part, *weight, {}, real) : linear_dense(ctx, part, dense.detached(), {}, real);
      const auto variable = std::make_shared<Variable>();
      if (records) raw.set_variable(variable);
      Tape own = make_tape();
      TapeScope on(ctx, records ? &own : nullptr);
      Tensor logits = options.logit_scale == 1 ? raw : affine(ctx, raw, options.logit_scale);
      if (options.softcap > 0)
        logits = affine(ctx, unary(ctx, affine(ctx, logits, 1 / options.softcap), Unary::kTanh), options.softcap);
      const Tensor value = loss(ctx, logits, first);
      require(value.numel() == 1, "[head_chunks] the loss of a chunk is one number, got {}", value.shape().to_string());
      accumulate(ctx, total, value.detached());
      if (!value.requires_grad()) continue;
      Tensor one = ctx.empty(value.shape(), value.dtype());
      fill(ctx, one, 1);
      own.backward(ctx, value, one);
      TapeScope none(ctx, nullptr);
      if (gradients.hidden) {
        const Tensor dhidden = weight ? linear_transposed(ctx, variable->grad, *weight, hidden.dtype())
                                      : matmul(ctx, variable->grad, dense.detached(), false, false, 1, hidden.dtype());
        copy(ctx, dhidden, gradients.hidden.narrowed(0, first, part.dim(0)));
      }
      if (gradients.dense) accumulate(ctx, gradients.dense, matmul(ctx, variable->grad, part, true, false, 1, real));
    }
  }
  if (records) record_scaled(ctx, "head_chunks", hidden, dense, total, gradients);
  return total;
}

}  // namespace pmetal::ops
