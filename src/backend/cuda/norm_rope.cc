// Launchers of norm_rope and norm_rope_backward.
#include "ops/norm_rope.h"

#include <bit>

#include "backend/cuda/launch.h"
#include "backend/cuda/norm_rope.h"

namespace pmetal::cuda {
namespace {

using ops::NormRopeArgs;
using ops::NormRopeBackwardArgs;

// heads of whole packs of eight
bool has_chunks(const View& v) {
  return v.dtype == DType::kBF16 && v.stride(2) == 1 && v.stride(0) % 8 == 0 && v.stride(1) % 8 == 0 &&
         is_aligned(v, 16);
}

template <class Args>
const char* decline_common(const Args& args) {
  const int64_t d = args.x.dim(2);
  if (d % 16 || d > 512 || !std::has_single_bit(static_cast<uint64_t>(d)))
    return "heads of other than 16 to 512, a power of two";
  if (args.x.dim(0) * args.x.dim(1) >= int64_t{1} << 31) return "very many rows";
  if (2 * args.cos.dim(1) != d) return "a part of the head turns";
  if (!has_chunks(args.x)) return "x is not bf16 in 16-byte chunks";
  for (const View* v : {&args.cos, &args.sin})
    if (v->dtype != DType::kF32 || v->stride(1) != 1 || v->stride(0) % 4 || !is_aligned(*v, 16))
      return "the table is not f32 in 16-byte chunks";
  if (args.cos.stride(0) != args.sin.stride(0)) return "cos and sin have rows of different step";
  if (is_double(args.weight.dtype) || args.weight.stride(0) != 1 || !is_aligned(args.weight, 16))
    return "the weight is strided or f64";
  return nullptr;
}
const char* decline(const NormRopeArgs& args, const KernelContext&) {
  return has_chunks(args.y) ? decline_common(args) : "y is not bf16 in 16-byte chunks";
}
const char* decline_backward(const NormRopeBackwardArgs& args, const KernelContext&) {
  if (!has_chunks(args.dy) || (args.dx && !has_chunks(args.dx))) return "gradients are not bf16 in 16-byte chunks";
  return decline_common(args);
}

template <class Args>
NormRopeLaunch common(const Args& args, const View& to) {
  NormRopeLaunch a{};
  a.x = args.x.data, a.weight = args.weight.data, a.weight_dtype = args.weight.dtype;
  a.cos = args.cos.template as<float>(), a.sin = args.sin.template as<float>(), a.table_stride = args.cos.stride(0);
  a.tokens = args.x.dim(0), a.heads = args.x.dim(1), a.d = args.x.dim(2);
  a.x_stride = args.x.stride(0), a.x_head_stride = args.x.stride(1);
  if (to) a.y_stride = to.stride(0), a.y_head_stride = to.stride(1);
  a.eps = args.eps;
  return a;
}

void run(const NormRopeArgs& args, const KernelContext& kernel) {
  if (args.x.numel() == 0) return;
  NormRopeLaunch a = common(args, args.y);
  a.y = args.y.data;
  launch_norm_rope(stream_of(kernel).handle(), a);
  check_launch("norm_rope");
}

int64_t backward_workspace(const NormRopeBackwardArgs& args, const KernelContext&) {
  if (!args.dweight) return 0;
  return norm_rope_blocks(args.x.dim(0), args.x.dim(1), args.x.dim(2)) * args.x.dim(2) * 4;
}

void run_backward(const NormRopeBackwardArgs& args, const KernelContext& kernel) {
  if (args.x.numel() == 0) return;
  NormRopeLaunch a = common(args, args.dx);
  a.dy = args.dy.data, a.dy_stride = args.dy.stride(0), a.dy_head_stride = args.dy.stride(1);
  a.dx = args.dx.data;
  if (args.dweight) {
    a.dweight = args.dweight.as<float>();
    a.partial = static_cast<float*>(kernel.workspace);
  }
  launch_norm_rope_backward(stream_of(kernel).handle(), a);
  check_launch("norm_rope_backward");
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<NormRopeArgs> kForward[] = {{"heads", cuda::decline, cuda::run}};
const Candidate<NormRopeBackwardArgs> kBackward[] = {
    {"heads", cuda::decline_backward, cuda::run_backward, cuda::backward_workspace}};
}  // namespace
const KernelList<NormRopeArgs> norm_rope_cuda = {"norm_rope", kForward};
const KernelList<NormRopeBackwardArgs> norm_rope_backward_cuda = {"norm_rope_backward", kBackward};
}  // namespace pmetal::ops
