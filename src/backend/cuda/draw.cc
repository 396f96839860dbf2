// Launcher of draw.
#include "ops/draw.h"

#include "backend/cuda/draw.h"
#include "backend/cuda/launch.h"

namespace pmetal::cuda {
namespace {

static_assert(sizeof(DrawRowLaunch) == sizeof(ops::DrawRow));

const char* decline(const ops::DrawArgs& args, const KernelContext&) {
  return args.logits.stride(1) == 1 ? nullptr : "rows are strided";
}
int64_t workspace(const ops::DrawArgs& args, const KernelContext&) { return draw_workspace(args.rows.dim(0)); }
void run(const ops::DrawArgs& args, const KernelContext& kernel) {
  launch_draw(stream_of(kernel).handle(),
              {args.logits.as<float>(), args.logits.stride(0), args.rows.as<DrawRowLaunch>(), args.out.as<int32_t>(),
               args.rows.dim(0), args.logits.dim(1), args.has_top_p, kernel.workspace});
  check_launch("draw");
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<DrawArgs> kCandidates[] = {{"slices", cuda::decline, cuda::run, cuda::workspace}};
}
const KernelList<DrawArgs> draw_cuda = {"draw", kCandidates};
}  // namespace pmetal::ops
