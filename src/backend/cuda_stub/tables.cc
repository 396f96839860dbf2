// Stands in for backend/cuda where that is not built: every op's CUDA list is empty.
#include "base/error.h"
#include "ops/device.h"
#include "ops/headers.inc"

namespace pmetal::ops {

#define X(op, Args) const KernelList<Args> op##_cuda = {#op, {}};
#include "ops/kernels.inc"
#undef X

std::string_view preferred_format_cuda(const quant::Format& dense) { return dense.name; }

CudaState cuda_state() { return {0, "this build has no CUDA backend (no toolkit of version 12.4 or later was found)"}; }
CudaQueue open_cuda(int) { fail(ErrorCode::kUnsupported, "{}; use --device cpu", cuda_state().reason); }
void synchronize_cuda(void*) {}
void copy_from_cuda(const Buffer&, void*) {}

}  // namespace pmetal::ops
