// Candidates of `linear` and `matmul` on the products of gemm/: one level per instruction set.
#pragma once

#include "backend/cpu/isa.h"
#include "ops/linear.h"

namespace pmetal::cpu {

template <Isa kIsa>
struct GemmLevel {
  static const char* decline(const ops::LinearArgs& args, const KernelContext& kernel);
  static void run(const ops::LinearArgs& args, const KernelContext& kernel);
  static int64_t workspace(const ops::LinearArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::MatmulArgs& args, const KernelContext& kernel);
  static void run(const ops::MatmulArgs& args, const KernelContext& kernel);
  static int64_t workspace(const ops::MatmulArgs& args, const KernelContext& kernel);
};

template <Isa kIsa, class Args>
constexpr Candidate<Args> gemm_candidate(const char* name) {
  return {name, GemmLevel<kIsa>::decline, GemmLevel<kIsa>::run, GemmLevel<kIsa>::workspace};
}

}  // namespace pmetal::cpu
