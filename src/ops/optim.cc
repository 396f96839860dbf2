#include "ops/optim.h"

#include "ops/common.h"
#include "ops/elementwise.h"

namespace pmetal::ops {

void adamw(Context& ctx, const Tensor& master, const Tensor& grad, const Tensor& m, const Tensor& v,
           const Tensor& weight, const AdamWArgs& hyper) {
  for (const Tensor* t : {&master, &grad, &m, &v})
    require(t->dtype() == DType::kF32 && t->is_contiguous() && t->numel() == master.numel(),
            "[adamw] wants flat f32 buffers of {} elements, got {} {}", master.numel(), t->shape().to_string(),
            name_of(t->dtype()));
  if (weight)
    require(weight.is_contiguous() && weight.numel() == master.numel(), "[adamw] the weight has {} elements, not {}",
            weight.numel(), master.numel());
  require(hyper.step >= 1, "[adamw] steps count from 1, got {}", hyper.step);
  require(!hyper.decision || ctx.device().is_cuda(), "[adamw] steps on {} are decided by the host",
          to_string(ctx.device()));
  AdamWArgs args = hyper;
  args.master = master.view();
  args.grad = grad.view();
  args.m = m.view();
  args.v = v.view();
  args.weight = weight ? weight.view() : View{};
  dispatch(ctx, adamw_cpu, adamw_cuda, args);
}

double sum_squares(Context& ctx, const Tensor& x) {
  require(x.is_contiguous(), "[sum_squares] wants a flat buffer, x is {}", x.shape().to_string());
  Tensor out = ctx.empty({1}, DType::kF64);
  dispatch(ctx, sum_squares_cpu, sum_squares_cuda, SumSquaresArgs{x.view(), out.view()});
  return ctx.device().is_meta() ? 0 : *to_host(ctx, out).data<double>();
}

void decide_step(Context& ctx, const Tensor& gradient, const Tensor& loss, double max_norm, const Tensor& decision) {
  require(gradient.is_contiguous() && gradient.dtype() == DType::kF32 && loss.numel() == 1 &&
              loss.dtype() == DType::kF32 && decision.numel() == kStepDecision && decision.dtype() == DType::kF64,
          "[decide_step] gradient {}, loss {}, decision {}", gradient.shape().to_string(), loss.shape().to_string(),
          decision.shape().to_string());
  const bool taken =
      try_dispatch(ctx, step_decision_cuda, StepDecisionArgs{gradient.view(), loss.view(), decision.view(), max_norm});
  require(taken, "[decide_step] steps on {} are decided by the host", to_string(ctx.device()));
}

}  // namespace pmetal::ops
