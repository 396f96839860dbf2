// Fused ops of the CPU: their candidates, and how an op asks for one.
#pragma once

#include "ops/linear_group.h"
#include "ops/lora.h"
#include "ops/norm_rope.h"
#include "ops/rope_append.h"

namespace pmetal::ops {

extern const KernelList<RopeAppendArgs> rope_append_cpu;
extern const KernelList<LinearGroupArgs> linear_group_cpu;  // AMX alone
extern const KernelList<NormRopeArgs> norm_rope_cpu;
extern const KernelList<NormRopeBackwardArgs> norm_rope_backward_cpu;  // without the weight's gradient

// The candidate of a fused op for the CPU that takes the arguments, or null: then the caller runs the ops it stands
// for. A meta context that plans for the CPU answers for it.
template <class Args>
const Candidate<Args>* fused_candidate(Context& ctx, const KernelList<Args>& cpu, const Args& args) {
  const Device device = ctx.device().is_meta() ? ctx.planned().value_or(ctx.device()) : ctx.device();
  if (device.is_meta() || device.is_cuda()) return nullptr;
  const KernelContext kernel{&ctx.threads(), ctx.stream(), 0, nullptr, 0};
  for (const Candidate<Args>& c : cpu.candidates)
    if (!c.decline || !c.decline(args, kernel)) return &c;
  return nullptr;
}
template <class Args>
bool run_fused(Context& ctx, const KernelList<Args>& cpu, const Args& args) {
  const Candidate<Args>* c = fused_candidate(ctx, cpu, args);
  if (!c) return false;
  KernelContext kernel{&ctx.threads(), ctx.stream(), 0, nullptr, 0};
  if (!ctx.device().is_meta())
    detail::run_candidate(ctx, cpu, *c, args, kernel);
  else if (const int64_t bytes = c->workspace ? c->workspace(args, kernel) : 0; bytes > 0)
    ctx.allocator().allocate(bytes);
  return true;
}

}  // namespace pmetal::ops
