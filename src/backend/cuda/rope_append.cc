// Launcher of rope_append.
#include "ops/rope_append.h"
#include "backend/cuda/launch.h"

namespace pmetal::cuda {
namespace {

// heads of pairs of bf16 that start on 4 bytes
bool has_pairs(const View& v) {
  if (v.dtype != DType::kBF16 || v.stride(-1) != 1 || !is_aligned(v, 4)) return false;
  for (int i = 0; i + 1 < v.rank; ++i)
    if (v.strides[i] % 2) return false;
  return true;
}

const char* decline(const ops::RopeAppendArgs& args, const KernelContext&) {
  const int64_t d = args.q.dim(2);
  if (args.v.dim(2) != d || d > 512 || d % 4 || 2 * args.cos.dim(1) != d) return "not whole heads of up to 512";
  for (const View* v : {&args.q, &args.k, &args.v, &args.q_out, &args.k_pages, &args.v_pages})
    if (!has_pairs(*v)) return "not bf16 in aligned pairs";
  for (const View* v : {&args.cos, &args.sin})
    if (v->dtype != DType::kF32 || v->stride(1) != 1 || v->stride(0) % 2 || !is_aligned(*v, 8))
      return "the table is not f32 in aligned pairs";
  for (const View* v : {&args.q_norm, &args.k_norm})
    if (*v && (v->stride(0) != 1 || is_double(v->dtype))) return "a norm's weight is strided or f64";
  return nullptr;
}

void run(const ops::RopeAppendArgs& args, const KernelContext& kernel) {
  if (args.q.numel() == 0) return;
  launch_rope_append(stream_of(kernel).handle(), {args.q, args.k, args.v, args.q_norm, args.k_norm, args.cos, args.sin,
                                                  args.q_out, args.k_pages, args.v_pages, args.slots, args.eps});
  check_launch("rope_append");
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<RopeAppendArgs> kCandidates[] = {{"warp", cuda::decline, cuda::run}};
}
const KernelList<RopeAppendArgs> rope_append_cuda = {"rope_append", kCandidates};
}  // namespace pmetal::ops
