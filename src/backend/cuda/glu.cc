// Launchers of glu and glu_backward.
#include "backend/cuda/launch.h"
#include "ops/activation.h"

namespace pmetal::cuda {
namespace {

using ops::Activation;
static_assert(static_cast<int>(Activation::kSilu) == kActSilu && static_cast<int>(Activation::kRelu) == kActRelu &&
              static_cast<int>(Activation::kIdentity) == kActIdentity);

const char* decline(const ops::GluArgs& args, const KernelContext&) {
  if (is_double(args.gate.dtype)) return "f64 runs on the CPU";
  for (const View* v : {&args.gate, &args.up, &args.y, &args.dy, &args.dgate, &args.dup})
    if (v->data && v->stride(-1) != 1) return "columns are not contiguous";
  return nullptr;
}

template <bool kBackward>
void run(const ops::GluArgs& args, const KernelContext& kernel) {
  if (args.gate.numel() == 0) return;
  GluLaunch a{};
  const auto row = [](const View& v) { return v.data ? v.stride(0) : 0; };
  a.gate = args.gate.data, a.gate_stride = row(args.gate);
  a.up = args.up.data, a.up_stride = row(args.up);
  a.dy = args.dy.data, a.dy_stride = row(args.dy);
  a.y = args.y.data, a.y_stride = row(args.y);
  a.dgate = args.dgate.data, a.dgate_stride = row(args.dgate);
  a.dup = args.dup.data, a.dup_stride = row(args.dup);
  a.rows = args.gate.dim(0);
  a.n = args.gate.dim(1);
  a.activation = static_cast<int>(args.activation);
  a.dtype = args.gate.dtype;
  a.packed = true;
  for (const View* v : {&args.gate, &args.up, &args.y, &args.dy, &args.dgate, &args.dup})
    a.packed &= has_packed_rows(*v);
  launch_glu(stream_of(kernel).handle(), a, kBackward);
  check_launch("glu");
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<GluArgs> kForward[] = {{"packs", cuda::decline, cuda::run<false>}};
const Candidate<GluArgs> kBackward[] = {{"packs", cuda::decline, cuda::run<true>}};
}  // namespace
const KernelList<GluArgs> glu_cuda = {"glu", kForward};
const KernelList<GluArgs> glu_backward_cuda = {"glu_backward", kBackward};
}  // namespace pmetal::ops
