#include "nn/block.h"

#include "ops/linear_group.h"
#include "ops/norm.h"
#include "ops/norm_rope.h"

namespace pmetal::nn {
namespace {

ops::SumAndNorm normed(Context& ctx, const Hidden& x, const Norm& norm, int64_t room) {
  if (x.delta.defined()) return ops::add_rms_norm(ctx, x.residual, x.delta, norm.weight, norm.eps, 0, room);
  return {x.residual, ops::rms_norm(ctx, x.residual, norm.weight, norm.eps, 0, room)};
}

}  // namespace

bool is_plain(const Linear& l) {
  for (const auto& adapter : l.adapters)
    if (adapter) return false;
  return l.weight.defined() && !l.trainable.defined() && !l.group;
}

Projected project(Context& ctx, const Batch& batch, const Hidden& x, const Norm& norm,
                  std::span<const Linear* const> linears) {
  bool plain = !x.delta.defined();
  std::vector<ops::WeightAndBias> weights;
  for (const Linear* l : linears) {
    plain = plain && is_plain(*l);
    weights.push_back(frozen(*l));
  }
  if (plain) {
    std::vector<Tensor> y = ops::linear_group(ctx, x.residual, {&norm.weight, norm.eps}, weights);
    if (!y.empty()) return {x.residual, std::move(y)};
  }
  const auto [sum, h] = normed(ctx, x, norm, room_for(ctx, *linears[0]));
  return {sum, forward_group(ctx, batch, linears, h)};
}

Projected project_gated(Context& ctx, const Batch& batch, const Hidden& x, const Norm& norm, const Linear& gate,
                        const Linear& up, ops::Activation activation, int64_t room) {
  if (!x.delta.defined() && is_plain(gate) && is_plain(up))
    if (const Tensor y =
            ops::linear_glu(ctx, x.residual, {&norm.weight, norm.eps}, frozen(gate), frozen(up), activation))
      return {x.residual, {y}};
  const auto [sum, h] = normed(ctx, x, norm, room_for(ctx, gate));
  const Linear* both[] = {&gate, &up};
  const std::vector<Tensor> y = forward_group(ctx, batch, both, h);
  return {sum, {ops::glu(ctx, y[0], y[1], activation, room)}};
}

Hidden add_projected(Context& ctx, const Batch& batch, const Tensor& residual, const Linear& linear, const Tensor& x) {
  if (is_plain(linear))
    if (const Tensor sum = ops::linear_add(ctx, x, frozen(linear), residual)) return {sum, {}};
  return {residual, linear.forward(ctx, batch, x)};
}

Tensor attend_rotated(Context& ctx, int layer, Tensor q, Tensor k, const Tensor& v, const ops::HeadNorms& norms,
                      const ops::RopeTable& rope, const Batch& batch, const ops::AttentionOptions& options) {
  if (batch.memory)
    if (const Tensor out = batch.memory->rotate_append_and_attend(ctx, layer, q, k, v, norms, rope, batch, options))
      return out;
  q = norms.q ? ops::norm_rope(ctx, q, norms.q, norms.eps, rope) : ops::rope(ctx, q, rope);
  k = norms.k ? ops::norm_rope(ctx, k, norms.k, norms.eps, rope) : ops::rope(ctx, k, rope);
  return attend(ctx, layer, q, k, v, batch, options);
}

}  // namespace pmetal::nn
