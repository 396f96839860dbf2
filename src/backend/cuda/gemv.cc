// Launchers of gemv.cu: linear for few rows, and linear_group. Work that is recorded holds its weights constant (see
// ops/graph.h), so there the kernel may read them early.
#include "backend/cuda/gemv.h"

#include "backend/cuda/dense.h"
#include "backend/cuda/launch.h"
#include "ops/linear_group.h"

namespace pmetal::cuda {
namespace {

using ops::LinearArgs;
using ops::LinearGroupArgs;

const char* decline_part(const quant::Weight& weight, const View& bias) {
  if (!weight.format->is_dense) return "the weight's format has no CUDA kernel";
  if (weight.row_step) return "rows of the weight do not follow one another";
  const View w = dense_view(weight);
  if (w.dtype != DType::kBF16) return "not bf16";
  if (!has_packed_rows(w) || weight.out >= int64_t{1} << 28) return "rows of the weight are not aligned to 16 bytes";
  if (bias && (bias.stride(0) != 1 || is_double(bias.dtype))) return "the bias is strided or f64";
  return nullptr;
}
const char* decline_rows(const View& x, const KernelContext& kernel) {
  if (kernel.is_batch_invariant) return "not one algorithm for any number of rows";
  if (x.dtype != DType::kBF16) return "not bf16";
  if (!gemv_accepts(x.dim(0), x.dim(1))) return "more than 4 rows, or too long ones";
  return has_packed_rows(x) ? nullptr : "rows are not aligned to 16 bytes";
}

GemvLaunch common(const View& x, const View& y, const Stream& stream) {
  GemvLaunch a{};
  a.x = x.data, a.x_stride = x.stride(0);
  a.m = static_cast<int>(x.dim(0)), a.k = static_cast<int>(x.dim(1));
  a.y_dtype = y.dtype;
  a.early = stream.is_recording();
  a.multiprocessors = stream.multiprocessors();
  return a;
}
GemvLaunch::Part part(const quant::Weight& w, const View& bias, const View& y) {
  return {w.planes[0].bytes.data(), bias.data, y.data, y ? y.stride(0) : 0, static_cast<int>(w.out), bias.dtype};
}

const char* decline_group(const LinearGroupArgs& args, const KernelContext& kernel) {
  if (const char* why = decline_rows(args.x, kernel)) return why;
  if (args.norm && (args.norm.stride(0) != 1 || !is_aligned(args.norm, 8 * size_of(args.norm.dtype))))
    return "the norm's weight is not aligned";
  if (args.residual && (args.residual.dtype != DType::kBF16 || args.residual.stride(1) != 1))
    return "the residual is not bf16 rows";
  for (size_t i = 0; i < args.n; ++i)
    if (const char* why = decline_part(*args.weight[i], args.bias[i])) return why;
  return nullptr;
}
void run_group(const LinearGroupArgs& args, const KernelContext& kernel) {
  if (args.x.numel() == 0) return;
  const Stream& stream = stream_of(kernel);
  GemvLaunch a = common(args.x, args.y[0], stream);
  a.norm = args.norm.data, a.norm_dtype = args.norm.dtype, a.eps = args.eps;
  a.parts = static_cast<int>(args.n);
  for (size_t i = 0; i < args.n; ++i) a.part[i] = part(*args.weight[i], args.bias[i], args.y[i]);
  a.glu = args.is_gated;
  a.activation = static_cast<int>(args.activation);
  a.residual = args.residual.data;
  if (args.residual) a.residual_stride = args.residual.stride(0);
  launch_gemv(stream.handle(), a);
  check_launch("linear_group");
}

}  // namespace

const char* decline_gemv(const LinearArgs& args, const KernelContext& kernel) {
  if (args.transposed) return "the product is transposed";
  if (const char* why = decline_part(*args.weight, args.bias)) return why;
  if (const char* why = decline_rows(args.x, kernel)) return why;
  if (args.y.stride(1) != 1) return "the output is strided";
  return is_double(args.y.dtype) ? "f64 output" : nullptr;
}
void run_gemv(const LinearArgs& args, const KernelContext& kernel) {
  if (args.y.numel() == 0) return;
  const Stream& stream = stream_of(kernel);
  GemvLaunch a = common(args.x, args.y, stream);
  a.parts = 1;
  a.part[0] = part(*args.weight, args.bias, args.y);
  a.accumulate = args.accumulate;
  launch_gemv(stream.handle(), a);
  check_launch("linear (gemv)");
}

}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<LinearGroupArgs> kCandidates[] = {{"gemv", cuda::decline_group, cuda::run_group}};
}
const KernelList<LinearGroupArgs> linear_group_cuda = {"linear_group", kCandidates};
}  // namespace pmetal::ops
