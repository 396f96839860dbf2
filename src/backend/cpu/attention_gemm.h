// Candidates of `attention` and `attention_backward` made of the matrix kernels of gemm/: one level per instruction
// set.
#pragma once

#include "backend/cpu/isa.h"
#include "ops/attention.h"

namespace pmetal::cpu {

struct GemmKernels;

template <Isa kIsa>
struct AttentionLevel {
  static const char* decline(const ops::AttentionArgs& args, const KernelContext& kernel);
  static void run(const ops::AttentionArgs& args, const KernelContext& kernel);
  static int64_t workspace(const ops::AttentionArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::AttentionBackwardArgs& args, const KernelContext& kernel);
  static void run(const ops::AttentionBackwardArgs& args, const KernelContext& kernel);
  static int64_t workspace(const ops::AttentionBackwardArgs& args, const KernelContext& kernel);
};

template <Isa kIsa, class Args>
constexpr Candidate<Args> attention_candidate(const char* name) {
  return {name, AttentionLevel<kIsa>::decline, AttentionLevel<kIsa>::run, AttentionLevel<kIsa>::workspace};
}

// with given kernels (tests: the emulated tiles)
void attention_with(const GemmKernels& kernels, const ops::AttentionArgs& args, const KernelContext& kernel);
int64_t attention_with_workspace(const GemmKernels& kernels, const ops::AttentionArgs& args,
                                 const KernelContext& kernel);
void attention_backward_with(const GemmKernels& kernels, const ops::AttentionBackwardArgs& args,
                             const KernelContext& kernel);
int64_t attention_backward_with_workspace(const GemmKernels& kernels, const ops::AttentionBackwardArgs& args,
                                          const KernelContext& kernel);

}  // namespace pmetal::cpu
