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

namespace detail {
bool dispatch_verbose();
bool dispatch_strict();
void print_choice(const char* op, const char* name, const char* declined);
[[noreturn]] void no_kernel(const char* op, Device device, const char* why);
double seconds_now();
void add_time(OpTimes& times, const char* op, const char* kernel, double since);
}  // namespace detail

// Runs the first candidate that takes the arguments; does nothing on meta beyond reserving its workspace.
template <class Args>
void dispatch(Context& ctx, const KernelList<Args>& cpu, const KernelList<Args>& cuda, const Args& args) {
  if (ctx.device().is_meta()) return;
  const KernelList<Args>& list = ctx.device().is_cuda() ? cuda : cpu;
  KernelContext kernel{&ctx.threads(), ctx.stream(), ctx.device().index, nullptr, 0};
  const char* why = nullptr;
  for (size_t i = 0; i < list.candidates.size(); ++i) {
    const Candidate<Args>& c = list.candidates[i];
    if (const char* reason = c.decline ? c.decline(args, kernel) : nullptr) {
      why = reason;
      if (detail::dispatch_verbose()) detail::print_choice(list.op, c.name, reason);
      continue;
    }
    if (detail::dispatch_verbose()) detail::print_choice(list.op, c.name, nullptr);
    if ((detail::dispatch_strict() || ctx.is_strict()) && list.candidates.size() > 1 && i + 1 == list.candidates.size())
      detail::no_kernel(list.op, ctx.device(), why ? why : "only the plain kernel is left and PMETAL_STRICT=1");
    const double begin = ctx.op_times() ? detail::seconds_now() : 0;
    Buffer workspace;
    if (c.workspace) {
      kernel.workspace_bytes = c.workspace(args, kernel);
      if (kernel.workspace_bytes > 0) {
        workspace = ctx.allocator().allocate(kernel.workspace_bytes);
        kernel.workspace = workspace.data();
      }
    }
    c.run(args, kernel);
    if (ctx.op_times()) detail::add_time(*ctx.op_times(), list.op, c.name, begin);
    return;
  }
  detail::no_kernel(list.op ? list.op : "?", ctx.device(), why ? why : "the list is empty");
}

}  // namespace pmetal
