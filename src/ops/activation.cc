#include "ops/activation.h"

#include "ops/common.h"

namespace pmetal::ops {
namespace {

Tensor run(Context& ctx, const Tensor& gate, const Tensor& up, Activation activation, int64_t room = 0) {
  const Tensor g = with_rows(ctx, gate), u = up ? with_rows(ctx, up) : Tensor();
  Tensor y = room > 0 && gate.rank() == 2 ? ctx.empty_rows(gate.dim(0), gate.dim(1), gate.dtype(), room)
                                          : ctx.empty(gate.shape(), gate.dtype());
  GluArgs args;
  args.gate = as_rows(g);
  if (u) args.up = as_rows(u);
  args.y = as_rows(y);
  args.activation = activation;
  dispatch(ctx, glu_cpu, glu_cuda, args);
  return y;
}

Tensor record(Context& ctx, const Tensor& gate, const Tensor& up, Activation activation, int64_t room = 0) {
  Tensor y = run(ctx, gate, up, activation, room);
  if (!ctx.records({&gate, &up})) return y;
  const Saved saved_gate(gate), saved_up = up ? Saved(up) : Saved();
  const Tensor* inputs[] = {&gate, &up};
  Tensor* outputs[] = {&y};
  const auto up_of = [saved_up](Context& c) { return saved_up.defined() ? saved_up.get(c) : Tensor(); };
  ctx.tape()->record(
      up ? "glu" : "activate", inputs, outputs,
      [saved_gate, up_of, activation](Context& c, std::span<const Tensor> grads, GradSink& sink) {
        const Tensor g = with_rows(c, saved_gate.get(c));
        Tensor u = up_of(c);
        if (u) u = with_rows(c, u);
        const Tensor dy = with_rows(c, grads[0]);
        GluArgs args;
        args.gate = as_rows(g);
        if (u) args.up = as_rows(u);
        args.dy = as_rows(dy);
        args.activation = activation;
        Tensor dgate, dup;
        if (sink.wants(0)) {
          dgate = sink.empty_for(0, g.shape(), g.dtype());
          args.dgate = as_rows(dgate);
        }
        if (sink.wants(1)) {
          dup = sink.empty_for(1, u.shape(), u.dtype());
          args.dup = as_rows(dup);
        }
        dispatch(c, glu_backward_cpu, glu_backward_cuda, args);
        sink.add(0, dgate);
        sink.add(1, dup);
      },
      {[saved_gate, up_of, activation](Context& c) { return run(c, saved_gate.get(c), up_of(c), activation); }});
  return y;
}

}  // namespace

Activation parse_activation(std::string_view name) {
  struct Entry {
    std::string_view name;
    Activation activation;
  };
  static constexpr Entry kNames[] = {
      {"silu", Activation::kSilu},         {"swish", Activation::kSilu},
      {"gelu", Activation::kGelu},         {"gelu_pytorch_tanh", Activation::kGeluTanh},
      {"gelu_new", Activation::kGeluTanh}, {"relu", Activation::kRelu},
      {"relu2", Activation::kRelu2},       {"quick_gelu", Activation::kQuickGelu},
      {"linear", Activation::kIdentity},
  };
  std::string known;
  for (const Entry& e : kNames) {
    if (e.name == name) return e.activation;
    known += (known.empty() ? "" : ", ") + std::string(e.name);
  }
  fail(ErrorCode::kUnsupported, "activation function \"{}\" is not known; known: {}", name, known);
}

Tensor glu(Context& ctx, const Tensor& gate, const Tensor& up, Activation activation, int64_t room) {
  require(gate.shape() == up.shape() && gate.dtype() == up.dtype(), "[glu] gate is {} {}, up is {} {}",
          gate.shape().to_string(), name_of(gate.dtype()), up.shape().to_string(), name_of(up.dtype()));
  return record(ctx, gate, up, activation, room);
}

Tensor activate(Context& ctx, const Tensor& x, Activation activation) { return record(ctx, x, {}, activation); }

}  // namespace pmetal::ops
