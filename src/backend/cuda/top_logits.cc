// Launcher of top_logits.
#include "ops/top_logits.h"
#include "backend/cuda/launch.h"

namespace pmetal::cuda {
namespace {

const char* decline(const ops::TopLogitsArgs& args, const KernelContext&) {
  if (args.logits.dtype != DType::kF32 || args.logits.stride(1) != 1) return "not f32 rows";
  return args.logits.dim(0) < 1 || args.logits.dim(0) > 65535 || args.logits.dim(1) >= int64_t{1} << 31
             ? "no rows, or more than 65535"
             : nullptr;
}

int64_t workspace(const ops::TopLogitsArgs& args, const KernelContext&) {
  return top_logits_workspace(args.logits.dim(0));
}

void run(const ops::TopLogitsArgs& args, const KernelContext& kernel) {
  TopLogitsLaunch a{};
  a.logits = args.logits.as<float>();
  a.out = args.out.as<int32_t>();
  a.rows = args.logits.dim(0), a.n = args.logits.dim(1);
  a.stride = args.logits.stride(0), a.out_stride = args.out.stride(0);
  a.want = static_cast<int>(args.want), a.capacity = static_cast<int>(args.capacity);
  a.tops = static_cast<float*>(kernel.workspace);
  a.histogram = reinterpret_cast<int32_t*>(a.tops + a.rows * kMostSlices);
  launch_top_logits(stream_of(kernel).handle(), a);
  check_launch("top_logits");
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<TopLogitsArgs> kCandidates[] = {{"bins", cuda::decline, cuda::run, cuda::workspace}};
}
const KernelList<TopLogitsArgs> top_logits_cuda = {"top_logits", kCandidates};
}  // namespace pmetal::ops
