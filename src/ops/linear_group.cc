#include "ops/linear_group.h"

#include "ops/common.h"
#include "ops/fused_cpu.h"

namespace pmetal::ops {
namespace {

LinearGroupArgs arguments(const Tensor& x, const NormInput& norm, std::span<const WeightAndBias> weights) {
  LinearGroupArgs args;
  require(x.rank() == 2 && weights.size() <= LinearGroupArgs::kMost, "[linear_group] x is {}, {} weights",
          x.shape().to_string(), weights.size());
  args.x = x.view();
  if (norm.weight) {
    require(norm.weight->numel() == x.dim(1), "[linear_group] the norm's weight {} does not fit x {}",
            norm.weight->shape().to_string(), x.shape().to_string());
    args.norm = norm.weight->view();
    args.eps = norm.eps;
  }
  args.n = weights.size();
  for (size_t i = 0; i < weights.size(); ++i) {
    require(weights[i].weight->in == x.dim(1), "[linear_group] x is {}, weight {} is [{}, {}]", x.shape().to_string(),
            i, weights[i].weight->out, weights[i].weight->in);
    args.weight[i] = weights[i].weight;
    if (weights[i].bias) args.bias[i] = weights[i].bias.view();
  }
  return args;
}

// Whether a CPU has a kernel for it, asked before results are allocated; a GPU is asked when they are there.
bool is_taken(Context& ctx, const LinearGroupArgs& args) {
  return !ctx.tape() && (ctx.device().is_cuda() || fused_candidate(ctx, linear_group_cpu, args));
}
bool run(Context& ctx, const LinearGroupArgs& args) {
  return ctx.device().is_cuda() ? try_dispatch(ctx, linear_group_cuda, args) : run_fused(ctx, linear_group_cpu, args);
}

}  // namespace

std::vector<Tensor> linear_group(Context& ctx, const Tensor& x, const NormInput& norm,
                                 std::span<const WeightAndBias> weights) {
  LinearGroupArgs args = arguments(x, norm, weights);
  if (!is_taken(ctx, args)) return {};
  std::vector<Tensor> all;
  for (size_t i = 0; i < weights.size(); ++i) {
    all.push_back(ctx.empty_spread(x.dim(0), weights[i].weight->out, x.dtype()));
    args.y[i] = all.back().view();
  }
  if (!run(ctx, args)) return {};
  return all;
}

Tensor linear_glu(Context& ctx, const Tensor& x, const NormInput& norm, const WeightAndBias& gate,
                  const WeightAndBias& up, Activation activation) {
  require(gate.weight->out == up.weight->out, "[linear_glu] the gate has {} rows, what it gates {}", gate.weight->out,
          up.weight->out);
  const WeightAndBias weights[] = {gate, up};
  LinearGroupArgs args = arguments(x, norm, weights);
  args.is_gated = true;
  args.activation = activation;
  if (!is_taken(ctx, args)) return {};
  const Tensor y = ctx.empty_spread(x.dim(0), gate.weight->out, x.dtype());
  args.y[0] = y.view();
  return run(ctx, args) ? y : Tensor();
}

Tensor linear_add(Context& ctx, const Tensor& x, const WeightAndBias& weight, const Tensor& residual) {
  const WeightAndBias weights[] = {weight};
  LinearGroupArgs args = arguments(x, {}, weights);
  require(residual.rank() == 2 && residual.dim(0) == x.dim(0) && residual.dim(1) == weight.weight->out,
          "[linear_add] {} rows with a weight of {} rows do not fit the residual {}", x.dim(0), weight.weight->out,
          residual.shape().to_string());
  args.residual = residual.view();
  if (!is_taken(ctx, args)) return {};
  const Tensor y = ctx.empty(residual.shape(), x.dtype());
  args.y[0] = y.view();
  return run(ctx, args) ? y : Tensor();
}

}  // namespace pmetal::ops
