// linear_group on AMX: the norm goes with the packing of x, which all weights share, and what follows the products is
// done while their sums lie in L1 (gemm/, fused_rows.h).
#include "ops/linear_group.h"

#include "backend/cpu/fused_rows.h"
#include "backend/cpu/gemm/gemm.h"
#include "backend/cpu/gemm/kernels.h"
#include "ops/fused_cpu.h"

namespace pmetal::cpu {
namespace {

using ops::LinearGroupArgs;

bool is_rows(const View& v) { return v.dtype == DType::kBF16 && (v.dim(1) <= 1 || v.stride(1) == 1); }
int64_t row_stride(const View& v) { return v.dim(0) <= 1 ? v.dim(1) : v.stride(0); }
ConstMatrix in(const View& v) { return {v.data, v.dtype, row_stride(v)}; }

const char* decline(const LinearGroupArgs& args, const KernelContext&) {
  if (isa() < Isa::kAmx) return "no AMX here";
  if (!is_rows(args.x)) return "takes bf16 in dense rows alone";
  if (args.x.dim(1) == 0) return "nothing to multiply";
  if (args.norm && (args.norm.dtype != DType::kBF16 || args.norm.stride(0) != 1 || args.x.dim(1) > kMostNormed))
    return "the norm's weight must be bf16, and not too long";
  for (size_t i = 0; i < args.n; ++i) {
    const quant::Weight& w = *args.weight[i];
    if (w.format->name != "bf16_tile" && w.format->name != "bf16") return "takes bf16 weights alone";
    if (w.format != args.weight[0]->format || w.row_step) return "takes weights of one format alone";
    const View& bias = args.bias[i];
    if (bias && (bias.stride(0) != 1 || bias.dtype == DType::kF64)) return "the bias must be dense";
    if (args.y[i] && !is_rows(args.y[i])) return "makes bf16 in dense rows alone";
  }
  if (args.is_gated && !fused_rows_avx512_bf16().glu(args.activation)) return "the activation has no vector form";
  if (args.residual && !is_rows(args.residual)) return "the residual must be bf16 in dense rows";
  return nullptr;
}

LinearGroup group_of(const LinearGroupArgs& args) {
  const FusedRows& rows = fused_rows_avx512_bf16();
  LinearGroup g;
  g.m = args.x.dim(0), g.k = args.x.dim(1);
  g.x = in(args.x);
  if (args.norm) g.norm = {rows.norm, args.norm.data, args.eps};
  g.n_parts = static_cast<int>(args.n);
  for (size_t i = 0; i < args.n; ++i) {
    const quant::Weight& w = *args.weight[i];
    LinearGroup::Part& part = g.parts[i];
    part.n = w.out;
    part.w = {w.planes[0].bytes.data(), DType::kBF16,
              w.format->is_dense ? WeightLayout::kRowMajor : WeightLayout::kPacked, w.in};
    if (args.y[i]) part.y = {args.y[i].data, DType::kBF16, row_stride(args.y[i])};
    if (args.bias[i]) part.bias = args.bias[i].data, part.bias_dtype = args.bias[i].dtype;
  }
  if (args.residual) g.parts[0].residual = in(args.residual), g.finish = rows.add;
  g.is_gated = args.is_gated;
  if (args.is_gated) g.finish = rows.glu(args.activation);
  g.kernels = &amx_kernels();
  return g;
}

int64_t workspace(const LinearGroupArgs& args, const KernelContext& kernel) {
  return workspace_bytes(group_of(args), kernel.threads->size());
}
void run(const LinearGroupArgs& args, const KernelContext& kernel) {
  linear_group(group_of(args), kernel.workspace, *kernel.threads);
}

constexpr Candidate<LinearGroupArgs> kCandidates[] = {{"amx", decline, run, workspace}};

}  // namespace
}  // namespace pmetal::cpu

namespace pmetal::ops {
const KernelList<LinearGroupArgs> linear_group_cpu = {"linear_group", cpu::kCandidates};
}  // namespace pmetal::ops
