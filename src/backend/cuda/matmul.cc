// Launchers of linear and matmul: our own kernel for a few rows, cuBLASLt, then the plain kernel.
#include "backend/cuda/matmul.h"

#include "backend/cuda/dense.h"
#include "backend/cuda/launch.h"

namespace pmetal::cuda {
namespace {

using ops::LinearArgs;
using ops::MatmulArgs;

// The dense product that a linear is.
MatmulArgs as_matmul(const LinearArgs& args) {
  return {args.x, dense_view(*args.weight), args.y, false, !args.transposed, args.accumulate, 1};
}
std::optional<Gemm> problem(const MatmulArgs& args, const View& bias) {
  std::optional<Gemm> gemm = as_gemm(args.a, args.transpose_a, args.b, args.transpose_b, args.c);
  if (!gemm) return gemm;
  gemm->accumulate = args.accumulate;
  gemm->alpha = args.alpha;
  if (bias) {
    if (bias.stride(0) != 1) return std::nullopt;
    gemm->bias = bias.data;
    gemm->bias_type = bias.dtype;
  }
  return gemm;
}

const char* decline_library(const MatmulArgs& args, const View& bias, const KernelContext& kernel) {
  const std::optional<Gemm> gemm = problem(args, bias);
  if (!gemm) return "strides, dtypes or an empty side are not the library's";
  Products& products = stream_of(kernel).products();
  if (const char* why = products.unavailable()) return why;
  return products.accepts(*gemm) ? nullptr : "cuBLASLt has no algorithm for this problem";
}
void run_library(const MatmulArgs& args, const View& bias, const KernelContext& kernel) {
  Stream& stream = stream_of(kernel);
  stream.products().run(*problem(args, bias), kernel.workspace, stream.handle());
}

void run_plain(const MatmulArgs& args, const View& bias, Stream& stream) {
  if (args.c.numel() == 0) return;
  const auto flipped = [](View v, bool flip) {
    if (flip) std::swap(v.shape[0], v.shape[1]), std::swap(v.strides[0], v.strides[1]);
    return v;
  };
  launch_matmul_plain(stream.handle(), {flipped(args.a, args.transpose_a), flipped(args.b, args.transpose_b), args.c,
                                        bias, args.accumulate, args.alpha});
  check_launch("matmul");
}

bool is_f64(const MatmulArgs& args) {
  return is_double(args.a.dtype) || is_double(args.b.dtype) || is_double(args.c.dtype);
}

// ---- tables ----
const char* dense_only(const LinearArgs& args) {
  return args.weight->format->is_dense ? nullptr : "the weight's format has no CUDA kernel";
}

const char* decline_skinny(const LinearArgs& args, const KernelContext&) {
  if (const char* why = dense_only(args)) return why;
  if (args.transposed) return "the product is transposed";
  const View w = dense_view(*args.weight);
  if (args.x.dtype != DType::kBF16 || w.dtype != DType::kBF16) return "not bf16";
  if (args.weight->out >= int64_t{1} << 30 || !skinny_accepts(args.x.dim(0), args.weight->in, false, false))
    return "more than 16 rows, or an inner size that is no multiple of 64";
  if (!has_packed_rows(args.x) || !has_packed_rows(w)) return "rows are not aligned to 16 bytes";
  if (args.y.stride(1) != 1 || (args.bias && args.bias.stride(0) != 1)) return "the output is strided";
  return is_double(args.y.dtype) ? "f64 output" : nullptr;
}
void run_skinny(const LinearArgs& args, const KernelContext& kernel) {
  if (args.y.numel() == 0) return;
  Stream& stream = stream_of(kernel);
  SkinnyLaunch a{};
  a.x = args.x.data, a.x_stride = args.x.stride(0);
  a.m = static_cast<int>(args.x.dim(0)), a.k = static_cast<int>(args.weight->in), a.parts = 1;
  a.part[0] = {args.weight->planes[0].bytes.data(), args.bias.data, args.y.data, args.y.stride(0),
               static_cast<int>(args.weight->out),  args.bias.dtype};
  a.y_dtype = args.y.dtype;
  a.accumulate = args.accumulate;
  a.multiprocessors = stream.multiprocessors();
  launch_skinny(stream.handle(), a);
  check_launch("linear (skinny)");
}

const char* decline_gemv(const LinearArgs& args, const KernelContext&) {
  if (const char* why = dense_only(args)) return why;
  if (args.transposed) return "the product is transposed";
  if (args.x.dim(0) > 8) return "more than 8 rows";
  const View w = dense_view(*args.weight);
  if (args.x.dtype != DType::kBF16 || w.dtype != DType::kBF16) return "not bf16";
  if (!has_packed_rows(args.x) || !has_packed_rows(w)) return "rows are not aligned to 16 bytes";
  if (args.y.stride(1) != 1 || (args.bias && args.bias.stride(0) != 1)) return "the output is strided";
  return is_double(args.y.dtype) ? "f64 output" : nullptr;
}
void run_gemv(const LinearArgs& args, const KernelContext& kernel) {
  if (args.y.numel() == 0) return;
  GemvLaunch a{};
  a.x = args.x.data, a.x_stride = args.x.stride(0);
  a.w = args.weight->planes[0].bytes.data(), a.w_stride = args.weight->in;
  a.y = args.y.data, a.y_stride = args.y.stride(0), a.y_dtype = args.y.dtype;
  a.bias = args.bias.data, a.bias_dtype = args.bias.dtype;
  a.m = args.x.dim(0), a.n = args.weight->out, a.k = args.weight->in;
  a.accumulate = args.accumulate;
  launch_gemv(stream_of(kernel).handle(), a);
  check_launch("gemv");
}

int64_t product_workspace(const LinearArgs&, const KernelContext&) { return kProductWorkspace; }
int64_t product_workspace(const MatmulArgs&, const KernelContext&) { return kProductWorkspace; }

const char* decline_linear(const LinearArgs& args, const KernelContext& kernel) {
  if (const char* why = dense_only(args)) return why;
  return decline_library(as_matmul(args), args.bias, kernel);
}
void run_linear(const LinearArgs& args, const KernelContext& kernel) {
  run_library(as_matmul(args), args.bias, kernel);
}
const char* decline_linear_plain(const LinearArgs& args, const KernelContext&) {
  if (const char* why = dense_only(args)) return why;
  return is_f64(as_matmul(args)) ? "f64 runs on the CPU" : nullptr;
}
void run_linear_plain(const LinearArgs& args, const KernelContext& kernel) {
  run_plain(as_matmul(args), args.bias, stream_of(kernel));
}

const char* decline_matmul(const MatmulArgs& args, const KernelContext& kernel) {
  return decline_library(args, {}, kernel);
}
void run_matmul(const MatmulArgs& args, const KernelContext& kernel) { run_library(args, {}, kernel); }
const char* decline_matmul_plain(const MatmulArgs& args, const KernelContext&) {
  return is_f64(args) ? "f64 runs on the CPU" : nullptr;
}
void run_matmul_plain(const MatmulArgs& args, const KernelContext& kernel) { run_plain(args, {}, stream_of(kernel)); }

}  // namespace

void multiply(const MatmulArgs& args, const View& bias, Stream& stream, void* workspace) {
  const std::optional<Gemm> gemm = problem(args, bias);
  if (gemm && stream.products().accepts(*gemm))
    stream.products().run(*gemm, workspace, stream.handle());
  else
    run_plain(args, bias, stream);
}

}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<LinearArgs> kLinear[] = {
    {"skinny", cuda::decline_skinny, cuda::run_skinny},
    {"gemv", cuda::decline_gemv, cuda::run_gemv},
    {"cublaslt", cuda::decline_linear, cuda::run_linear, cuda::product_workspace},
    {"plain", cuda::decline_linear_plain, cuda::run_linear_plain},
};
const Candidate<MatmulArgs> kMatmul[] = {
    {"cublaslt", cuda::decline_matmul, cuda::run_matmul, cuda::product_workspace},
    {"plain", cuda::decline_matmul_plain, cuda::run_matmul_plain},
};
}  // namespace
const KernelList<LinearArgs> linear_cuda = {"linear", kLinear};
const KernelList<MatmulArgs> matmul_cuda = {"matmul", kMatmul};

std::string_view preferred_format_cuda(const quant::Format& dense) { return dense.name; }
}  // namespace pmetal::ops
