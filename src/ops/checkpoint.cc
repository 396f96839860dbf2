// checkpoint: the forward runs without a tape and keeps its input alone; the backward runs the body again on a tape of
// its own. Same kernels, same counters, same order of additions: gradients are bit-equal to those without, as long as
// nothing but the body reads the input (else only the order of additions to the input's gradient differs).
#include "ops/elementwise.h"

namespace pmetal::ops {

Tensor checkpoint(Context& ctx, const Tensor& input, std::function<Tensor(Context&, const Tensor&)> body) {
  Tape* const tape = ctx.tape();
  if (!tape) return body(ctx, input);
  Tensor y;
  {
    TapeScope off(ctx, nullptr);
    y = body(ctx, input.detached()).detached();
  }
  // Recorded even when the input itself needs no gradient: leaves inside the body may.
  const Tensor* inputs[] = {&input};
  Tensor* outputs[] = {&y};
  tape->record(
      "checkpoint", inputs, outputs,
      [saved = Saved(input), body = std::move(body)](Context& c, std::span<const Tensor> grads, GradSink& sink) {
        Tape own = make_tape(c);
        Tensor x = saved.get(c).detached();
        const auto variable = std::make_shared<Variable>();
        if (sink.wants(0)) x.set_variable(variable);
        Tensor again;
        {
          TapeScope on(c, &own);
          again = body(c, x);
        }
        if (again.requires_grad()) own.backward(c, again, grads[0]);
        if (sink.wants(0)) sink.add(0, variable->grad);
      });
  return y;
}

}  // namespace pmetal::ops
