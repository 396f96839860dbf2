// Kernel lists: an op fills an Args struct of plain views; a backend offers candidates for it, best first, each able to
// say why it declines. PMETAL_VERBOSE=dispatch prints each choice; PMETAL_STRICT=1 makes falling to the last (plain)
// candidate an error. Kernels know nothing of Tensor or the tape and never allocate: they are given workspace.
#pragma once

#include <cstdint>
#include <span>

#include "base/threads.h"
#include "tensor/context.h"

namespace pmetal {

struct KernelContext {
  ThreadPool* threads = nullptr;
  void* stream = nullptr;  // the backend's queue of work
  int device_index = 0;
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
  bool is_batch_invariant = false;  // Context::is_batch_invariant()
};

template <class Args>
struct Candidate {
  const char* name;  // "avx512", "plain", "sm90", ...
  // why not, or null when it can run these arguments; null pointer: takes everything
  const char* (*decline)(const Args&, const KernelContext&);
  void (*run)(const Args&, const KernelContext&);
  int64_t (*workspace)(const Args&, const KernelContext&) = nullptr;  // bytes; null: none
};

template <class Args>
struct KernelList {
  const char* op = nullptr;
  std::span<const Candidate<Args>> candidates;  // the last is the plain kernel
};

// extern tables of one op; backend/cpu and backend/cuda (or its stub) define them
#define PMETAL_DECLARE_KERNELS(op, Args)  \
  extern const KernelList<Args> op##_cpu; \
  extern const KernelList<Args> op##_cuda;

// A fused op: a device may have a kernel for it; where none takes the arguments the caller runs the ops it is made of.
#define PMETAL_DECLARE_FUSED_KERNELS(op, Args) extern const KernelList<Args> op##_cuda;

namespace detail {
bool dispatch_verbose();
bool dispatch_strict();
void print_choice(const char* op, const char* name, const char* declined);
[[noreturn]] void no_kernel(const char* op, Device device, const char* why);
double seconds_now();
void add_time(OpTimes& times, const char* op, const char* kernel, double since);
}  // namespace detail

namespace detail {
template <class Args>
void run_candidate(Context& ctx, const KernelList<Args>& list, const Candidate<Args>& c, const Args& args,
                   KernelContext& kernel) {
  if (dispatch_verbose()) print_choice(list.op, c.name, nullptr);
  const RangeScope range(ctx, list.op);
  const double begin = ctx.op_times() ? seconds_now() : 0;
  Buffer workspace;
  if (c.workspace) {
    kernel.workspace_bytes = c.workspace(args, kernel);
    if (kernel.workspace_bytes > 0) {
      workspace = ctx.allocator().allocate(kernel.workspace_bytes);
      kernel.workspace = workspace.data();
    }
  }
  c.run(args, kernel);
  if (ctx.op_times()) add_time(*ctx.op_times(), list.op, c.name, begin);
}
}  // namespace detail

// The workspace that dispatch() would take on a device, allocated and given back: it counts in the allocator's peak.
// Which kernel a GPU takes depends on its stream: without one (a plan for a GPU of another machine) nothing is counted.
template <class Args>
void reserve_workspace(Context& ctx, const KernelList<Args>& list, int device_index, const Args& args) {
  if (ctx.planned() && ctx.planned()->is_cuda() && !ctx.stream()) return;
  const KernelContext kernel{&ctx.threads(), ctx.stream(), device_index, nullptr, 0, ctx.is_batch_invariant()};
  for (const Candidate<Args>& c : list.candidates) {
    if (c.decline && c.decline(args, kernel)) continue;
    if (const int64_t bytes = c.workspace ? c.workspace(args, kernel) : 0; bytes > 0) ctx.allocator().allocate(bytes);
    return;
  }
}

// Runs the first candidate that takes the arguments; on meta nothing runs, and a planning context reserves workspace.
template <class Args>
void dispatch(Context& ctx, const KernelList<Args>& cpu, const KernelList<Args>& cuda, const Args& args) {
  if (ctx.device().is_meta()) {
    if (const auto& planned = ctx.planned())
      reserve_workspace(ctx, planned->is_cuda() ? cuda : cpu, planned->index, args);
    return;
  }
  const KernelList<Args>& list = ctx.device().is_cuda() ? cuda : cpu;
  KernelContext kernel{&ctx.threads(), ctx.stream(), ctx.device().index, nullptr, 0, ctx.is_batch_invariant()};
  const char* why = nullptr;
  for (size_t i = 0; i < list.candidates.size(); ++i) {
    const Candidate<Args>& c = list.candidates[i];
    if (const char* reason = c.decline ? c.decline(args, kernel) : nullptr) {
      why = reason;
      if (detail::dispatch_verbose()) detail::print_choice(list.op, c.name, reason);
      continue;
    }
    if ((detail::dispatch_strict() || ctx.is_strict()) && list.candidates.size() > 1 && i + 1 == list.candidates.size())
      detail::no_kernel(list.op, ctx.device(), why ? why : "only the plain kernel is left and PMETAL_STRICT=1");
    detail::run_candidate(ctx, list, c, args, kernel);
    return;
  }
  detail::no_kernel(list.op ? list.op : "?", ctx.device(), why ? why : "the list is empty");
}

// The same for a fused op: false when no candidate of the device takes the arguments.
template <class Args>
bool try_dispatch(Context& ctx, const KernelList<Args>& cuda, const Args& args) {
  if (!ctx.device().is_cuda()) return false;
  KernelContext kernel{&ctx.threads(), ctx.stream(), ctx.device().index, nullptr, 0, ctx.is_batch_invariant()};
  for (const Candidate<Args>& c : cuda.candidates) {
    if (const char* reason = c.decline ? c.decline(args, kernel) : nullptr) {
      if (detail::dispatch_verbose()) detail::print_choice(cuda.op, c.name, reason);
      continue;
    }
    detail::run_candidate(ctx, cuda, c, args, kernel);
    return true;
  }
  return false;
}

}  // namespace pmetal
