// matmul, plain: tiles of 32 x 64 outputs; blocks of 128 along the inner dimension are converted to the accumulator
// type on the stack and added in order of k, so an output's bits depend on its row of a, its column of b and K alone.
#include "backend/cpu/matmul.h"

#include "backend/cpu/linear_gemm.h"
#include "backend/cpu/plain.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::MatmulArgs;

constexpr int64_t kM = 32, kN = 64, kK = 128;

// c[rows, kN] += a[rows, k] · b[k, kN]
template <class A>
void multiply(const A* a, const A* b, A* c, int64_t rows, int64_t k) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t half = 0; half < kN; half += 32) {
      A sums[32];
      std::copy(c + r * kN + half, c + r * kN + half + 32, sums);
      for (int64_t i = 0; i < k; ++i) {
        const A x = a[r * kK + i];
        const A* y = b + i * kN + half;
        for (int j = 0; j < 32; ++j) sums[j] += x * y[j];
      }
      std::copy(sums, sums + 32, c + r * kN + half);
    }
}

template <class A>
void run(const MatmulArgs& args, const KernelContext& kernel) {
  const int64_t m = args.c.dim(0), n = args.c.dim(1), inner = args.a.dim(args.transpose_a ? 0 : 1);
  const int64_t a_row = args.a.stride(args.transpose_a ? 1 : 0), a_k = args.a.stride(args.transpose_a ? 0 : 1);
  const int64_t b_k = args.b.stride(args.transpose_b ? 1 : 0), b_col = args.b.stride(args.transpose_b ? 0 : 1);
  const int64_t tiles_n = (n + kN - 1) / kN, tiles_m = (m + kM - 1) / kM;
  kernel.threads->parallel_for(tiles_m * tiles_n, 1, [&](int64_t begin, int64_t end) {
    A a[kM * kK], b[kK * kN], c[kM * kN], line[std::max(kK, kM)];
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = t / tiles_n * kM, column = t % tiles_n * kN;
      const int64_t rows = std::min(kM, m - row), columns = std::min(kN, n - column);
      std::fill(c, c + kM * kN, A{0});
      for (int64_t k0 = 0; k0 < inner; k0 += kK) {
        const int64_t k = std::min(kK, inner - k0);
        if (a_k == 1 || a_row != 1) {
          for (int64_t r = 0; r < rows; ++r) load(args.a, (row + r) * a_row + k0 * a_k, a_k, k, a + r * kK);
        } else {  // stored column by column
          for (int64_t i = 0; i < k; ++i) {
            load(args.a, row + (k0 + i) * a_k, 1, rows, line);
            for (int64_t r = 0; r < rows; ++r) a[r * kK + i] = line[r];
          }
        }
        if (columns < kN) std::fill(b, b + kK * kN, A{0});
        if (b_col == 1 || b_k != 1) {
          for (int64_t i = 0; i < k; ++i) load(args.b, (k0 + i) * b_k + column * b_col, b_col, columns, b + i * kN);
        } else {
          for (int64_t j = 0; j < columns; ++j) {
            load(args.b, k0 + (column + j) * b_col, 1, k, line);
            for (int64_t i = 0; i < k; ++i) b[i * kN + j] = line[i];
          }
        }
        multiply(a, b, c, rows, k);
      }
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t at = (row + r) * args.c.stride(0) + column * args.c.stride(1);
        const A alpha = args.alpha;
        A* sums = c + r * kN;
        for (int64_t j = 0; j < columns; ++j) sums[j] *= alpha;
        if (args.accumulate) {
          A scratch[kN];
          const A* before = read(args.c, at, args.c.stride(1), columns, scratch);
          for (int64_t j = 0; j < columns; ++j) sums[j] += before[j];
        }
        store(args.c, at, args.c.stride(1), columns, sums);
      }
    }
  });
}

}  // namespace

void matmul_plain(const MatmulArgs& args, const KernelContext& kernel) {
  if (args.c.numel() == 0) return;
  const bool wide = is_double(args.a.dtype) || is_double(args.b.dtype);
  with_accumulator(wide ? DType::kF64 : DType::kF32, [&](auto zero) { run<decltype(zero)>(args, kernel); });
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
using cpu::gemm_candidate;
using cpu::Isa;
const Candidate<MatmulArgs> kCandidates[] = {
    gemm_candidate<Isa::kAmx, MatmulArgs>("amx"),
    gemm_candidate<Isa::kAvx512Bf16, MatmulArgs>("avx512_bf16"),
    gemm_candidate<Isa::kAvx512, MatmulArgs>("avx512"),
    gemm_candidate<Isa::kAvx2, MatmulArgs>("avx2"),
    {"plain", nullptr, cpu::matmul_plain},
};
}  // namespace
const KernelList<MatmulArgs> matmul_cpu = {"matmul", kCandidates};
}  // namespace pmetal::ops
