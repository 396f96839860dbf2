// index_rows, plain: gather and scatter of rows and of one column per row; transfer between host and device, which on
// the CPU is a copy.
#include "backend/cpu/elementwise.h"
#include "backend/cpu/plain.h"
#include "backend/cpu/simd_level.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::IndexArgs;

int64_t index_at(const IndexArgs& args, int64_t i, int64_t bound) {
  const int64_t at = args.index.as<int32_t>()[i * args.index.stride(0)];
  PMETAL_ASSERT(at >= 0 && at < bound, "index {} of {}", at, bound);
  return at;
}

template <class A>
void zero_row(const View& v, int64_t row, int64_t n) {
  A zeros[kBlock] = {};
  for (int64_t c = 0; c < n; c += kBlock)
    store(v, row * v.stride(0) + c * v.stride(1), v.stride(1), std::min(kBlock, n - c), zeros);
}

template <class A>
void run(const IndexArgs& args, const KernelContext& kernel) {
  const View &x = args.x, &y = args.y;
  switch (args.op) {
    case ops::kGatherRows:
      for_blocks(kernel, y.dim(0), y.dim(1), [&](int64_t i, int64_t c, int64_t n) {
        A v[kBlock], w[kBlock];
        const int64_t at = index_at(args, i, x.dim(0)) * x.stride(0) + c * x.stride(1);
        const int64_t to = i * y.stride(0) + c * y.stride(1);
        load(x, at, x.stride(1), n, v);
        if (args.accumulate) {
          const A* before = read(y, to, y.stride(1), n, w);
          for (int64_t j = 0; j < n; ++j) v[j] += before[j];
        }
        store(y, to, y.stride(1), n, v);
      });
      return;
    case ops::kScatterRows:
      if (!args.accumulate) for_rows(kernel, y.dim(0), y.dim(1), [&](int64_t r) { zero_row<A>(y, r, y.dim(1)); });
      // columns are cut among threads: rows that meet are added in order
      kernel.threads->parallel_for((y.dim(1) + 127) / 128, 1, [&](int64_t begin, int64_t end) {
        A v[kBlock], w[kBlock];
        const int64_t first = begin * 128, last = std::min(end * 128, y.dim(1));
        for (int64_t i = 0; i < x.dim(0); ++i) {
          const int64_t row = index_at(args, i, y.dim(0));
          for (int64_t c = first; c < last; c += kBlock) {
            const int64_t n = std::min(kBlock, last - c), to = row * y.stride(0) + c * y.stride(1);
            load(x, i * x.stride(0) + c * x.stride(1), x.stride(1), n, v);
            if (args.accumulate) {
              const A* before = read(y, to, y.stride(1), n, w);
              for (int64_t j = 0; j < n; ++j) v[j] += before[j];
            }
            store(y, to, y.stride(1), n, v);
          }
        }
      });
      return;
    case ops::kGatherColumns:
      for_rows(kernel, x.dim(0), 1, [&](int64_t r) {
        A v;
        load(x, r * x.stride(0) + index_at(args, r, x.dim(1)) * x.stride(1), 1, 1, &v);
        store(y, r * y.stride(0), 1, 1, &v);
      });
      return;
    case ops::kScatterColumns:
      for_rows(kernel, y.dim(0), y.dim(1), [&](int64_t r) {
        A v, before = 0;
        const int64_t to = r * y.stride(0) + index_at(args, r, y.dim(1)) * y.stride(1);
        if (args.accumulate)
          load(y, to, 1, 1, &before);
        else
          zero_row<A>(y, r, y.dim(1));
        load(x, r * x.stride(0), 1, 1, &v);
        v += before;
        store(y, to, 1, 1, &v);
      });
      return;
    default: PMETAL_ASSERT(false, "index code {}", args.op);
  }
}

}  // namespace

void index_rows_plain(const IndexArgs& args, const KernelContext& kernel) {
  if (args.y.numel() == 0) return;
  const bool wide = is_double(args.x.dtype) || !is_floating(args.x.dtype);
  with_accumulator(wide ? DType::kF64 : DType::kF32, [&](auto zero) { run<decltype(zero)>(args, kernel); });
}

void transfer_plain(const ops::TransferArgs& args, const KernelContext&) {
  std::memcpy(args.to, args.from, static_cast<size_t>(args.size_bytes));
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
using cpu::simd_candidate;
const Candidate<IndexArgs> kIndex[] = {simd_candidate<cpu::Avx512, IndexArgs>("avx512"),
                                       simd_candidate<cpu::Avx2, IndexArgs>("avx2"),
                                       {"plain", nullptr, cpu::index_rows_plain}};
const Candidate<TransferArgs> kTransfer[] = {{"plain", nullptr, cpu::transfer_plain}};
}  // namespace
const KernelList<IndexArgs> index_rows_cpu = {"index_rows", kIndex};
const KernelList<TransferArgs> transfer_cpu = {"transfer", kTransfer};
}  // namespace pmetal::ops
