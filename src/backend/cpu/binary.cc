// binary, plain: two operands per element; the second may be one row for all or one value per row.
#include "backend/cpu/elementwise.h"
#include "backend/cpu/plain.h"
#include "backend/cpu/simd_level.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::BinaryArgs;

// a = a op b; NaN in either gives NaN
template <class A>
void apply(int op, A* a, const A* b, int64_t n) {
  switch (op) {
    case ops::kBinaryAdd:
      for (int64_t i = 0; i < n; ++i) a[i] += b[i];
      return;
    case ops::kBinarySub:
      for (int64_t i = 0; i < n; ++i) a[i] -= b[i];
      return;
    case ops::kBinaryMul:
      for (int64_t i = 0; i < n; ++i) a[i] *= b[i];
      return;
    case ops::kBinaryDiv:
      for (int64_t i = 0; i < n; ++i) a[i] /= b[i];
      return;
    case ops::kBinaryMin:
      for (int64_t i = 0; i < n; ++i) a[i] = std::isnan(a[i]) ? a[i] : a[i] < b[i] ? a[i] : b[i];
      return;
    case ops::kBinaryMax:
      for (int64_t i = 0; i < n; ++i) a[i] = std::isnan(a[i]) ? a[i] : a[i] > b[i] ? a[i] : b[i];
      return;
    case ops::kBinaryLess:
      for (int64_t i = 0; i < n; ++i) a[i] = a[i] < b[i] ? A{1} : a[i] == b[i] ? A{0.5} : A{0};
      return;
    default: PMETAL_ASSERT(false, "binary code {}", op);
  }
}

template <class A>
void run(const BinaryArgs& given, const KernelContext& kernel) {
  BinaryArgs args = given;
  if (args.broadcast == 0 && is_contiguous(args.a) && is_contiguous(args.b) && is_contiguous(args.y)) {
    args.a = flattened(args.a);
    args.b = flattened(args.b);
    args.y = flattened(args.y);
  }
  const Rows a(args.a), b(args.b), y(args.y);
  for_blocks(kernel, y.rows, y.n, [&](int64_t r, int64_t c, int64_t n) {
    A v[kBlock], w[kBlock];
    load(args.a, a.offset(r) + c * a.step, a.step, n, v);
    const A* other = w;
    if (args.broadcast == 2) {
      load(args.b, r * args.b.stride(0), 1, 1, w);
      std::fill(w + 1, w + n, w[0]);
    } else {
      other = read(args.b, (args.broadcast == 1 ? 0 : b.offset(r)) + c * b.step, b.step, n, w);
    }
    apply(args.op, v, other, n);
    if (args.accumulate) {
      const A* before = read(args.y, y.offset(r) + c * y.step, y.step, n, w);
      for (int64_t i = 0; i < n; ++i) v[i] += before[i];
    }
    store(args.y, y.offset(r) + c * y.step, y.step, n, v);
  });
}

}  // namespace

void binary_plain(const BinaryArgs& args, const KernelContext& kernel) {
  const bool f64 = is_double(args.a.dtype) || is_double(args.b.dtype);
  with_accumulator(f64 ? DType::kF64 : DType::kF32, [&](auto zero) { run<decltype(zero)>(args, kernel); });
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
using cpu::simd_candidate;
const Candidate<BinaryArgs> kCandidates[] = {simd_candidate<cpu::Avx512Bf16, BinaryArgs>("avx512_bf16"),
                                             simd_candidate<cpu::Avx512, BinaryArgs>("avx512"),
                                             simd_candidate<cpu::Avx2, BinaryArgs>("avx2"),
                                             {"plain", nullptr, cpu::binary_plain}};
}  // namespace
const KernelList<BinaryArgs> binary_cpu = {"binary", kCandidates};
}  // namespace pmetal::ops
