// linear and matmul on the tuned products of gemm/, one candidate per instruction set.
//   linear  takes dense and packed bf16 and f32 weights
//   matmul  a · bᵀ is a forward product, a · b an input gradient, aᵀ · b a weight gradient; with a factor, or aᵀ · b
//           into a narrow type, the product is made in f32 workspace first. Where aᵀ · b has few columns (LoRA's B) its
//           transpose is made there: then the wide a is the operand that needs no transposition. Same bits.
#include "backend/cpu/linear_gemm.h"

#include "backend/cpu/gemm/gemm.h"
#include "backend/cpu/gemm/kernels.h"
#include "backend/cpu/plain.h"
#include "ops/lora.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::LinearArgs;
using ops::MatmulArgs;

bool is_product(DType t) { return t == DType::kBF16 || t == DType::kF32; }
bool has_dense_rows(const View& v) { return v.dim(1) <= 1 || v.stride(1) == 1; }
int64_t row_stride(const View& v) { return v.dim(0) <= 1 ? v.dim(1) : v.stride(0); }

const char* decline_level(Isa needed) {
  if (isa() >= needed) return nullptr;
  switch (needed) {
    case Isa::kAmx: return "no AMX here";
    case Isa::kAvx512Bf16: return "no AVX-512 BF16 here";
    case Isa::kAvx512: return "no AVX-512 here";
    default: return "AVX2 is switched off";
  }
}

ConstMatrix in(const View& v) { return {v.data, v.dtype, row_stride(v)}; }
Matrix out(const View& v) { return {v.data, v.dtype, row_stride(v)}; }

const char* decline_views(const View& a, const View& c) {
  if (!is_product(a.dtype) || !is_product(c.dtype)) return "takes bf16 and f32 alone";
  if (!has_dense_rows(a) || !has_dense_rows(c)) return "rows must be dense";
  return nullptr;
}

// ---- linear ---------------------------------------------------------------------------------------------------------

WeightMatrix weight_of(const quant::Weight& w) {
  const bool packed = !w.format->is_dense;
  return {w.planes[0].bytes.data(), w.planes[0].dtype, packed ? WeightLayout::kPacked : WeightLayout::kRowMajor, w.in};
}

LinearForward forward_of(const LinearArgs& args, const GemmKernels& kernels) {
  LinearForward f;
  f.m = args.x.dim(0), f.n = args.weight->out, f.k = args.weight->in;
  f.x = in(args.x);
  f.w = weight_of(*args.weight);
  f.y = out(args.y);
  if (args.bias) f.bias = args.bias.data, f.bias_dtype = args.bias.dtype;
  if (args.accumulate && args.y.dtype == DType::kF32)
    f.accumulate = true;
  else if (args.accumulate)
    f.residual = in(args.y);
  f.kernels = &kernels;
  return f;
}

LinearInputGrad input_grad_of(const LinearArgs& args, const GemmKernels& kernels) {
  LinearInputGrad g;
  g.m = args.x.dim(0), g.n = args.weight->out, g.k = args.weight->in;
  g.dy = in(args.x);
  g.w = weight_of(*args.weight);
  g.dx = out(args.y);
  if (args.accumulate && args.y.dtype == DType::kF32)
    g.accumulate = true;
  else if (args.accumulate)
    g.residual = in(args.y);
  g.kernels = &kernels;
  return g;
}

const char* decline_linear(const LinearArgs& args, Isa needed) {
  if (const char* why = decline_level(needed)) return why;
  const std::string_view format = args.weight->format->name;
  if (format != "bf16" && format != "f32" && format != "bf16_tile" && format != "f32_panel")
    return "takes bf16 and f32 weights alone";
  if (args.bias && (args.bias.stride(0) != 1 || args.bias.dtype == DType::kF64)) return "the bias must be dense";
  if (args.bias && args.transposed) return "no bias with a transposed weight";
  return decline_views(args.x, args.y);
}

void run_linear(const LinearArgs& args, const KernelContext& kernel, const GemmKernels& kernels) {
  if (args.transposed)
    linear_input_grad(input_grad_of(args, kernels), kernel.workspace, *kernel.threads);
  else
    linear_forward(forward_of(args, kernels), kernel.workspace, *kernel.threads);
}

int64_t linear_workspace(const LinearArgs& args, const KernelContext& kernel, const GemmKernels& kernels) {
  const int n = kernel.threads->size();
  return args.transposed ? workspace_bytes(input_grad_of(args, kernels), n)
                         : workspace_bytes(forward_of(args, kernels), n);
}

// ---- linear with a second product -----------------------------------------------------------------------------------

LowRank low_of(const ops::LinearLowArgs& args) { return {args.low_x.dim(1), in(args.low_x), in(args.low_w)}; }

template <class Body>
auto with_low(const ops::LinearLowArgs& args, Body&& body) {
  if (args.linear.transposed) {
    LinearInputGrad g = input_grad_of(args.linear, amx_kernels());
    g.low = low_of(args);
    return body(g);
  }
  LinearForward f = forward_of(args.linear, amx_kernels());
  f.low = low_of(args);
  return body(f);
}

const char* decline_low(const ops::LinearLowArgs& args, const KernelContext&) {
  if (const char* why = decline_linear(args.linear, Isa::kAmx)) return why;
  for (const View* v : {&args.linear.x, &args.linear.y, &args.low_x, &args.low_w})
    if (v->dtype != DType::kBF16 || !has_dense_rows(*v)) return "takes bf16 in dense rows alone";
  if (args.linear.weight->planes[0].dtype != DType::kBF16) return "takes bf16 weights alone";
  if (args.low_x.dim(1) == 0 || args.linear.weight->in == 0 || args.linear.weight->out == 0) return "nothing to add";
  return nullptr;
}
int64_t low_workspace(const ops::LinearLowArgs& args, const KernelContext& kernel) {
  return with_low(args, [&](const auto& product) { return workspace_bytes(product, kernel.threads->size()); });
}
void run_low(const ops::LinearLowArgs& args, const KernelContext& kernel) {
  with_low(args, [&](const auto& product) {
    if constexpr (std::is_same_v<decltype(product), const LinearForward&>)
      linear_forward(product, kernel.workspace, *kernel.threads);
    else
      linear_input_grad(product, kernel.workspace, *kernel.threads);
  });
}
constexpr Candidate<ops::LinearLowArgs> kLowCandidates[] = {{"amx", decline_low, run_low, low_workspace}};

// ---- matmul ---------------------------------------------------------------------------------------------------------

constexpr int64_t kFewColumns = 64;

// cᵀ is made instead of c
bool is_turned(const MatmulArgs& args) {
  return args.transpose_a && args.c.dim(1) <= kFewColumns && args.c.dim(0) >= 4 * args.c.dim(1);
}
// The product goes through f32 workspace and is finished by us.
bool is_staged(const MatmulArgs& args) {
  return args.alpha != 1 || (args.transpose_a && args.c.dtype != DType::kF32) || is_turned(args);
}
int64_t staged_bytes(const MatmulArgs& args) { return is_staged(args) ? (args.c.numel() * 4 + 63) / 64 * 64 : 0; }

// calls body with the product that args ask for, into c
template <class Body>
auto with_product(const MatmulArgs& args, const GemmKernels& kernels, void* staged, Body&& body) {
  const bool direct = !is_staged(args), accumulate = direct && args.accumulate, wide = args.c.dtype == DType::kF32;
  const Matrix c = direct ? out(args.c) : Matrix{staged, DType::kF32, args.c.dim(is_turned(args) ? 0 : 1)};
  const ConstMatrix none, before = accumulate && !wide ? in(args.c) : none;
  const WeightMatrix b{args.b.data, args.b.dtype, WeightLayout::kRowMajor, row_stride(args.b)};
  if (args.transpose_a) {
    LinearWeightGrad g;
    g.m = args.a.dim(0), g.n = args.a.dim(1), g.k = args.b.dim(1);
    g.dy = in(args.a), g.x = in(args.b), g.dw = c;
    if (is_turned(args)) std::swap(g.n, g.k), std::swap(g.dy, g.x);
    g.accumulate = accumulate;
    g.kernels = &kernels;
    return body(g);
  }
  if (args.transpose_b) {
    LinearForward f;
    f.m = args.a.dim(0), f.n = args.b.dim(0), f.k = args.b.dim(1);
    f.x = in(args.a), f.w = b, f.y = c, f.residual = before;
    f.accumulate = accumulate && wide;
    f.kernels = &kernels;
    return body(f);
  }
  LinearInputGrad g;
  g.m = args.a.dim(0), g.n = args.b.dim(0), g.k = args.b.dim(1);
  g.dy = in(args.a), g.w = b, g.dx = c, g.residual = before;
  g.accumulate = accumulate && wide;
  g.kernels = &kernels;
  return body(g);
}

const char* decline_matmul(const MatmulArgs& args, Isa needed) {
  if (const char* why = decline_level(needed)) return why;
  if (args.transpose_a && args.transpose_b) return "one side may be transposed, not both";
  if (!is_product(args.b.dtype) || !has_dense_rows(args.b)) return "takes bf16 and f32 with dense rows";
  return decline_views(args.a, args.c);
}

int64_t matmul_workspace(const MatmulArgs& args, const KernelContext& kernel, const GemmKernels& kernels) {
  return staged_bytes(args) + with_product(args, kernels, nullptr, [&](const auto& product) {
           return workspace_bytes(product, kernel.threads->size());
         });
}

// columns [0, rows) of n rows of `from`, `stride` apart, as rows of n
void turn(const float* from, int64_t stride, int64_t rows, int64_t n, const GemmKernels& kernels, float* to) {
  if (rows == 16 && n == 16) return kernels.transpose16(from, stride * 4, to, 64);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < n; ++c) to[r * n + c] = from[c * stride + r];
}

// c's row = alpha · sums (+ c's row)
void finish_row(const MatmulArgs& args, int64_t row, int64_t n, const float* sums) {
  const int64_t at = row * row_stride(args.c);
  float v[kBlock], before[kBlock];
  for (int64_t c = 0; c < n; c += kBlock) {
    const int64_t width = std::min(kBlock, n - c);
    for (int64_t i = 0; i < width; ++i) v[i] = sums[c + i] * args.alpha;
    if (args.accumulate) {
      load(args.c, at + c, 1, width, before);
      for (int64_t i = 0; i < width; ++i) v[i] += before[i];
    }
    store(args.c, at + c, 1, width, v);
  }
}

void run_matmul(const MatmulArgs& args, const KernelContext& kernel, const GemmKernels& kernels) {
  float* staged = static_cast<float*>(kernel.workspace);
  void* rest = static_cast<std::byte*>(kernel.workspace) + staged_bytes(args);
  with_product(args, kernels, staged, [&](const auto& product) {
    if constexpr (std::is_same_v<decltype(product), const LinearForward&>)
      linear_forward(product, rest, *kernel.threads);
    else if constexpr (std::is_same_v<decltype(product), const LinearInputGrad&>)
      linear_input_grad(product, rest, *kernel.threads);
    else
      linear_weight_grad(product, rest, *kernel.threads);
  });
  if (!is_staged(args)) return;
  const int64_t m = args.c.dim(0), n = args.c.dim(1);
  constexpr int64_t kRows = 16;
  kernel.threads->parallel_for((m + kRows - 1) / kRows, grain_of(kRows * n), [&](int64_t begin, int64_t end) {
    alignas(64) float turned[kRows * kFewColumns];
    for (int64_t g = begin; g < end; ++g) {
      const int64_t first = g * kRows, rows = std::min(kRows, m - first);
      const float* sums = staged + first * n;
      if (is_turned(args)) {
        turn(staged + first, m, rows, n, kernels, turned);
        sums = turned;
      }
      for (int64_t r = 0; r < rows; ++r, sums += n) finish_row(args, first + r, n, sums);
    }
  });
}

}  // namespace

template <Isa kIsa>
const char* GemmLevel<kIsa>::decline(const LinearArgs& args, const KernelContext&) {
  return decline_linear(args, kIsa);
}
template <Isa kIsa>
void GemmLevel<kIsa>::run(const LinearArgs& args, const KernelContext& kernel) {
  run_linear(args, kernel, kernels_for(kIsa));
}
template <Isa kIsa>
int64_t GemmLevel<kIsa>::workspace(const LinearArgs& args, const KernelContext& kernel) {
  return linear_workspace(args, kernel, kernels_for(kIsa));
}
template <Isa kIsa>
const char* GemmLevel<kIsa>::decline(const MatmulArgs& args, const KernelContext&) {
  return decline_matmul(args, kIsa);
}
template <Isa kIsa>
void GemmLevel<kIsa>::run(const MatmulArgs& args, const KernelContext& kernel) {
  run_matmul(args, kernel, kernels_for(kIsa));
}
template <Isa kIsa>
int64_t GemmLevel<kIsa>::workspace(const MatmulArgs& args, const KernelContext& kernel) {
  return matmul_workspace(args, kernel, kernels_for(kIsa));
}

template struct GemmLevel<Isa::kAmx>;
template struct GemmLevel<Isa::kAvx512Bf16>;
template struct GemmLevel<Isa::kAvx512>;
template struct GemmLevel<Isa::kAvx2>;

}  // namespace pmetal::cpu

namespace pmetal::ops {
const KernelList<LinearLowArgs> linear_low_cpu = {"linear_low", cpu::kLowCandidates};
}  // namespace pmetal::ops
