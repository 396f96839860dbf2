// low_grad on AMX tiles: the candidate.
#include "backend/cpu/gemm/amx_tiles.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/narrow_tiles.h"

namespace pmetal::cpu {
namespace {

using ops::LowGradArgs;
using Products = NarrowProducts<HardwareTiles>;

const char* decline(const LowGradArgs& args, const KernelContext&) {
  if (isa() < Isa::kAmx) return "no AMX here";
  for (const View* v : {&args.m, &args.w, &args.v, &args.out})
    if (*v && (v->dtype != DType::kBF16 || (v->dim(1) > 1 && v->stride(1) != 1)))
      return "takes bf16 in dense rows alone";
  if (args.g && (args.g.dtype != DType::kF32 || (args.g.dim(1) > 1 && args.g.stride(1) != 1)))
    return "adds to f32 in dense rows alone";
  if (args.m.dim(0) == 0 || args.m.dim(1) == 0) return "nothing to multiply";
  const int64_t rank = args.out ? args.out.dim(1) : args.v.dim(1);
  return rank > 0 && rank <= Products::kMostRank ? nullptr : "takes ranks up to 64";
}
int64_t workspace(const LowGradArgs& args, const KernelContext& kernel) {
  return Products(amx_kernels(), args).workspace_bytes(workers_of(kernel));
}
void run(const LowGradArgs& args, const KernelContext& kernel) { Products(amx_kernels(), args).run(kernel); }

constexpr Candidate<LowGradArgs> kCandidates[] = {{"amx", decline, run, workspace}};

}  // namespace
}  // namespace pmetal::cpu

namespace pmetal::ops {
const KernelList<LowGradArgs> low_grad_cpu = {"low_grad", cpu::kCandidates};
}  // namespace pmetal::ops
