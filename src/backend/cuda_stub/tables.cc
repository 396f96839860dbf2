// Stands in for backend/cuda where that is not built: every op's CUDA list is empty.
#include "ops/headers.inc"

namespace pmetal::ops {

#define X(op, Args) const KernelList<Args> op##_cuda = {#op, {}};
#include "ops/kernels.inc"
#undef X

std::string_view preferred_format_cuda(const quant::Format& dense) { return dense.name; }

}  // namespace pmetal::ops
