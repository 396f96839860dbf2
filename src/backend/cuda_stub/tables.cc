// Stands in for backend/cuda where that is not built: every op's CUDA list is empty.
#include "base/error.h"
#include "ops/device.h"
#include "ops/graph.h"
#include "ops/headers.inc"

namespace pmetal::ops {

#define X(op, Args) const KernelList<Args> op##_cuda = {#op, {}};
#include "ops/fused.inc"
#include "ops/kernels.inc"
#undef X

std::string_view preferred_format_cuda(const quant::Format& dense) { return dense.name; }

CudaState cuda_state() { return {0, "this build has no CUDA backend (no toolkit of version 12.4 or later was found)"}; }
CudaQueue open_cuda(int) { fail(ErrorCode::kUnsupported, "{}; use --device cpu", cuda_state().reason); }
const RangeMarks* range_marks_cuda() { return nullptr; }
void synchronize_cuda(void*) {}
void copy_from_cuda(const Buffer&, void*) {}
std::shared_ptr<void> begin_download_cuda(void*, const void*, int64_t) { return nullptr; }
void end_download_cuda(const std::shared_ptr<void>&, void*, int64_t) {}
std::shared_ptr<void> make_graph_memory_cuda(Allocator&) { return nullptr; }
void use_graph_memory_cuda(const std::shared_ptr<void>&, bool) {}
std::shared_ptr<void> record_cuda(const std::shared_ptr<void>&, const std::function<void()>&) { return nullptr; }
void replay_cuda(const std::shared_ptr<void>&) {}

}  // namespace pmetal::ops
