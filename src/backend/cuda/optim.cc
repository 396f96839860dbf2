// Launchers of adamw, sum_squares and step_decision.
#include "ops/optim.h"

#include <cmath>

#include "backend/cuda/launch.h"
#include "backend/cuda/optim.h"

namespace pmetal::cuda {
namespace {

void adamw(const ops::AdamWArgs& args, const KernelContext& kernel) {
  if (args.master.numel() == 0) return;
  const double step = static_cast<double>(args.step), lr = args.lr, b1 = args.beta1, b2 = args.beta2;
  AdamWLaunch a{};
  a.master = args.master.as<float>();
  a.grad = args.grad.as<float>();
  a.m = args.m.as<float>();
  a.v = args.v.as<float>();
  a.weight = args.weight.data;
  a.weight_dtype = args.weight.dtype;
  a.n = args.master.numel();
  a.beta1 = args.beta1;
  a.beta2 = args.beta2;
  a.c1 = static_cast<float>(1 - b1);
  a.c2 = static_cast<float>(1 - b2);
  a.decay = static_cast<float>(1 - lr * static_cast<double>(args.weight_decay));
  a.step_size = static_cast<float>(lr / (1 - std::pow(b1, step)));
  a.root_scale = static_cast<float>(1 / std::sqrt(1 - std::pow(b2, step)));
  a.eps = args.eps;
  a.grad_scale = args.grad_scale;
  if (args.decision)
    launch_decided_adamw(stream_of(kernel).handle(), a, lr, b1, b2, args.decision.as<double>());
  else
    launch_adamw(stream_of(kernel).handle(), a);
  check_launch("adamw");
}

int64_t sum_squares_workspace(const ops::SumSquaresArgs& args, const KernelContext&) {
  return (args.x.numel() + kSumBlock - 1) / kSumBlock * 8;
}

void sum_squares(const ops::SumSquaresArgs& args, const KernelContext& kernel) {
  launch_sum_squares(stream_of(kernel).handle(), args.x, static_cast<double*>(kernel.workspace), args.out.as<double>());
  check_launch("sum_squares");
}

int64_t decision_workspace(const ops::StepDecisionArgs& args, const KernelContext& kernel) {
  return sum_squares_workspace({args.gradient, {}}, kernel) + 8;
}

void step_decision(const ops::StepDecisionArgs& args, const KernelContext& kernel) {
  const cudaStream_t stream = stream_of(kernel).handle();
  double* squares = static_cast<double*>(kernel.workspace);
  launch_sum_squares(stream, args.gradient, squares + 1, squares);
  launch_step_decision(stream, squares, args.loss.as<float>(), args.max_norm, args.decision.as<double>());
  check_launch("step_decision");
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<AdamWArgs> kAdamW[] = {{"flat", nullptr, cuda::adamw}};
const Candidate<SumSquaresArgs> kSumSquares[] = {{"blocks", nullptr, cuda::sum_squares, cuda::sum_squares_workspace}};
const Candidate<StepDecisionArgs> kDecision[] = {{"thread", nullptr, cuda::step_decision, cuda::decision_workspace}};
}  // namespace
const KernelList<StepDecisionArgs> step_decision_cuda = {"step_decision", kDecision};
const KernelList<AdamWArgs> adamw_cuda = {"adamw", kAdamW};
const KernelList<SumSquaresArgs> sum_squares_cuda = {"sum_squares", kSumSquares};
}  // namespace pmetal::ops
