// Launchers of rope_table and rope.
#include "ops/rope.h"
#include "backend/cuda/launch.h"

namespace pmetal::cuda {
namespace {

const char* decline_table(const ops::RopeTableArgs& args, const KernelContext&) {
  return is_double(args.cos.dtype) ? "f64 runs on the CPU" : nullptr;
}
const char* decline_rope(const ops::RopeArgs& args, const KernelContext&) {
  return is_double(args.x.dtype) ? "f64 runs on the CPU" : nullptr;
}

void run_table(const ops::RopeTableArgs& args, const KernelContext& kernel) {
  if (args.cos.numel() == 0) return;
  launch_rope_table(stream_of(kernel).handle(), args.positions, args.inv_freq, args.cos, args.sin, args.scale);
  check_launch("rope_table");
}

void run_rope(const ops::RopeArgs& args, const KernelContext& kernel) {
  if (args.x.numel() == 0) return;
  const int64_t half = args.cos.dim(1);
  bool packed = !args.interleaved && half % 4 == 0 && args.x.dim(2) % 4 == 0 && args.x.dtype == args.y.dtype &&
                args.x.dtype != DType::kF16;
  packed = packed && pack_of({&args.x, &args.y}) == 4 && pack_of({&args.cos, &args.sin}) == 4;
  launch_rope(stream_of(kernel).handle(), args.x, args.y, args.cos, args.sin, args.interleaved, args.inverse, packed);
  check_launch("rope");
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<RopeTableArgs> kTable[] = {{"element", cuda::decline_table, cuda::run_table}};
const Candidate<RopeArgs> kRope[] = {{"pairs", cuda::decline_rope, cuda::run_rope}};
}  // namespace
const KernelList<RopeTableArgs> rope_table_cuda = {"rope_table", kTable};
const KernelList<RopeArgs> rope_cuda = {"rope", kRope};
}  // namespace pmetal::ops
