// Launchers of linear and matmul: our own kernel for a few rows, cuBLASLt, then the plain kernel.
#include "backend/cuda/matmul.h"

#include "backend/cuda/dense.h"
#include "backend/cuda/gemv.h"
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
  std::optional<Gemm> gemm = problem(args, bias);
  if (!gemm) return "strides, dtypes or an empty side are not the library's";
  Products& products = stream_of(kernel).products();
  if (const char* why = products.unavailable()) return why;
  gemm->any_rows = kernel.is_batch_invariant;
  return products.accepts(*gemm) ? nullptr : "cuBLASLt has no algorithm for this problem";
}
void run_library(const MatmulArgs& args, const View& bias, const KernelContext& kernel) {
  Stream& stream = stream_of(kernel);
  Gemm gemm = *problem(args, bias);
  gemm.any_rows = kernel.is_batch_invariant;
  stream.products().run(gemm, kernel.workspace, stream.handle());
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
