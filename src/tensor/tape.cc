#include "tensor/tape.h"

namespace pmetal {

Saved::Saved(const Tensor& tensor) {
  if (tensor.variable() && tensor.variable()->recompute) {
    recompute_ = tensor.variable()->recompute;
  } else {
    tensor_ = tensor.detached();
  }
}

Tensor Saved::get(Context& ctx) const {
  if (!recompute_) return tensor_;
  if (!recompute_->value.defined()) {
    TapeScope off(ctx, nullptr);
    recompute_->value = recompute_->make(ctx);
  }
  return recompute_->value;
}

void GradSink::add(int input, const Tensor& gradient) {
  Variable* variable = inputs_[static_cast<size_t>(input)].get();
  if (!variable || !gradient.defined()) return;
  if (!variable->grad.defined()) {
    variable->grad = gradient.detached();
    if (variable->is_leaf) {  // it will be added to, so it must be the leaf's own
      variable->grad = ctx_.empty(gradient.shape(), gradient.dtype() == DType::kF64 ? DType::kF64 : DType::kF32);
      accumulate_(ctx_, variable->grad, Tensor());
      accumulate_(ctx_, variable->grad, gradient);
    }
    return;
  }
  PMETAL_ASSERT(variable->grad.numel() == gradient.numel(), "gradient {} added to {}", gradient.shape().to_string(),
                variable->grad.shape().to_string());
  // A gradient that somebody else still holds (a residual passes one tensor to two inputs) is copied before it is added
  // to. The leaf's own flat buffer is shared on purpose.
  if (!variable->is_leaf && variable->grad.buffer().use_count() > 1) {
    Tensor sum = ctx_.empty(variable->grad.shape(), variable->grad.dtype());
    const Tensor zero;
    accumulate_(ctx_, sum, zero);
    accumulate_(ctx_, sum, variable->grad);
    variable->grad = sum;
  }
  accumulate_(ctx_, variable->grad,
              gradient.shape() == variable->grad.shape() || !gradient.is_contiguous()
                  ? gradient
                  : gradient.reshaped(variable->grad.shape()));
}

Tensor GradSink::destination(int input) const {
  const Variable* variable = inputs_[static_cast<size_t>(input)].get();
  return variable && variable->is_leaf && variable->grad.dtype() == DType::kF32 ? variable->grad : Tensor();
}

Tensor GradSink::place(int input, const Shape& shape, DType dtype) const {
  const Variable* variable = inputs_[static_cast<size_t>(input)].get();
  if (!variable || !variable->place || variable->grad.defined()) return {};
  const Tensor t = variable->place(ctx_);
  return t.defined() && t.shape() == shape && t.dtype() == dtype ? t : Tensor();
}

Tensor GradSink::sum_so_far(int input, const Shape& shape, DType dtype) const {
  const Variable* variable = inputs_[static_cast<size_t>(input)].get();
  if (!variable || variable->is_leaf || !variable->grad.defined()) return {};
  const Tensor& grad = variable->grad;
  if (grad.dtype() != dtype || grad.buffer().use_count() != 1) return {};
  if (grad.shape() == shape && shape.rank() == 2 && grad.strides()[1] == 1) return grad.detached();
  return grad.numel() == shape.numel() && grad.is_contiguous() ? grad.reshaped(shape) : Tensor();
}

void Tape::record(const char* op, std::span<const Tensor* const> inputs, std::span<Tensor* const> outputs,
                  Backward backward, std::vector<Recompute> recompute) {
  PMETAL_ASSERT(recompute.empty() || recompute.size() == outputs.size());
  Node node{op, {}, {}, std::move(backward)};
  for (const Tensor* t : inputs) node.inputs.push_back(t ? t->variable() : nullptr);
  for (size_t i = 0; i < outputs.size(); ++i) {
    auto variable = std::make_shared<Variable>();
    if (!keeps_values_ && !recompute.empty() && recompute[i])
      variable->recompute = std::make_shared<Recomputed>(Recomputed{std::move(recompute[i]), {}});
    outputs[i]->set_variable(variable);
    node.outputs.push_back(std::move(variable));
  }
  nodes_.push_back(std::move(node));
}

void Tape::backward(Context& ctx, const Tensor& output, const Tensor& seed) {
  const std::pair<Tensor, Tensor> one[] = {{output, seed}};
  backward(ctx, one);
}

void Tape::backward(Context& ctx, std::span<const std::pair<Tensor, Tensor>> outputs_and_seeds) {
  TapeScope off(ctx, nullptr);
  for (const auto& [output, seed] : outputs_and_seeds) {
    const std::shared_ptr<Variable> one[] = {output.variable()};
    if (one[0]) GradSink(ctx, one, accumulate_).add(0, seed);
  }
  while (!nodes_.empty()) {
    Node node = std::move(nodes_.back());
    nodes_.pop_back();
    std::vector<Tensor> grads;
    bool any = false;
    for (const auto& variable : node.outputs) {
      grads.push_back(std::move(variable->grad));
      variable->grad = Tensor();
      any |= grads.back().defined();
    }
    if (!any) continue;
    GradSink sink(ctx, node.inputs, accumulate_);
    node.backward(ctx, grads, sink);
  }
}

Tensor make_leaf(const Tensor& value, std::string name, Tensor grad) {
  auto variable = std::make_shared<Variable>();
  variable->is_leaf = true;
  variable->name = std::move(name);
  variable->grad = std::move(grad);
  Tensor t = value.detached();
  t.set_variable(std::move(variable));
  return t;
}

}  // namespace pmetal
