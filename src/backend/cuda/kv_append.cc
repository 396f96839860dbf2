// Launcher of kv_append.
#include "backend/cuda/launch.h"
#include "ops/kv.h"

namespace pmetal::cuda {
namespace {

void run(const ops::KvAppendArgs& args, const KernelContext& kernel) {
  if (args.k.dim(0) == 0) return;
  launch_kv_append(stream_of(kernel).handle(), args.k, args.v, args.k_pages, args.v_pages, args.slots,
                   pack_of({&args.k, &args.v, &args.k_pages, &args.v_pages}));
  check_launch("kv_append");
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<KvAppendArgs> kCandidates[] = {{"rows", nullptr, cuda::run}};
}
const KernelList<KvAppendArgs> kv_append_cuda = {"kv_append", kCandidates};
}  // namespace pmetal::ops
