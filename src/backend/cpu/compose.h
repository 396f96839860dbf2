// For kernels that are made of other ops' kernels: the same choice as dispatch() makes, with workspace from the
// composing kernel's own.
#pragma once

#include "tensor/kernel.h"

namespace pmetal::cpu {

template <class Args>
const Candidate<Args>& chosen(const KernelList<Args>& list, const Args& args, const KernelContext& kernel) {
  for (size_t i = 0; i + 1 < list.candidates.size(); ++i)
    if (const Candidate<Args>& c = list.candidates[i]; !c.decline || !c.decline(args, kernel)) return c;
  return list.candidates.back();
}

template <class Args>
int64_t workspace_of(const KernelList<Args>& list, const Args& args, const KernelContext& kernel) {
  const Candidate<Args>& c = chosen(list, args, kernel);
  return c.workspace ? c.workspace(args, kernel) : 0;
}

template <class Args>
void run_chosen(const KernelList<Args>& list, const Args& args, const KernelContext& kernel, void* workspace) {
  KernelContext inner = kernel;
  const Candidate<Args>& c = chosen(list, args, kernel);
  inner.workspace = workspace;
  inner.workspace_bytes = c.workspace ? c.workspace(args, kernel) : 0;
  c.run(args, inner);
}

}  // namespace pmetal::cpu
