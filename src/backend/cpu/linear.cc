// linear, plain: decodes row blocks of the weight (any format) to f32 and multiplies. The fallback of every format.
//   forward     y[m, o] = Σ_i x[m, i] W[o, i]: a worker decodes 16 rows of W and meets all rows of x
//   transposed  y[m, i] = Σ_o x[m, o] W[o, i]: 64 rows of W at a time are decoded by all, then added in order of o
#include "backend/cpu/linear.h"

#include "backend/cpu/linear_gemm.h"
#include "backend/cpu/plain.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::LinearArgs;

constexpr int64_t kForwardRows = 16;     // rows of W decoded at a time by one worker
constexpr int64_t kTransposedRows = 64;  // rows of W decoded at a time by all
constexpr int64_t kChunk = 256;          // rows of x whose f32 sums are held at a time (transposed)
constexpr int64_t kTile = 512;           // columns of y per task (transposed)

template <class A>
void finish_row(const LinearArgs& args, int64_t row, int64_t first, int64_t n, A* sums) {
  A other[kBlock];
  if (args.bias) {
    const A* bias = read(args.bias, first * args.bias.stride(0), args.bias.stride(0), n, other);
    for (int64_t i = 0; i < n; ++i) sums[i] += bias[i];
  }
  const int64_t at = row * args.y.stride(0) + first * args.y.stride(1);
  if (args.accumulate) {
    const A* before = read(args.y, at, args.y.stride(1), n, other);
    for (int64_t i = 0; i < n; ++i) sums[i] += before[i];
  }
  store(args.y, at, args.y.stride(1), n, sums);
}

template <class A>
const A* decode(const quant::Weight& w, int64_t begin, int64_t end, float* rows, A* wide) {
  w.format->decode_rows(w, begin, end, rows);
  if constexpr (std::is_same_v<A, float>) {
    return rows;
  } else {
    std::copy(rows, rows + (end - begin) * w.in, wide);
    return wide;
  }
}

// workspace per worker: decoded rows (f32, and again as A for f64), then one row of x
template <class A>
void forward(const LinearArgs& args, const KernelContext& kernel) {
  const quant::Weight& w = *args.weight;
  const int64_t m = args.x.dim(0), k = w.in;
  const int64_t per_worker = (kForwardRows + 1) * k * 2;
  for_items(kernel, (w.out + kForwardRows - 1) / kForwardRows, [&](int64_t block, int worker) {
    const int64_t begin = block * kForwardRows, n = std::min(kForwardRows, w.out - begin);
    A* own = static_cast<A*>(kernel.workspace) + worker * per_worker;
    const A* rows = decode<A>(w, begin, begin + n, reinterpret_cast<float*>(own), own + kForwardRows * k);
    for (int64_t r = 0; r < m; ++r) {
      const A* x = read(args.x, r * args.x.stride(0), args.x.stride(1), k, own + 2 * kForwardRows * k);
      A sums[kForwardRows];
      for (int64_t o = 0; o < n; ++o) sums[o] = dot(x, rows + o * k, k);
      finish_row(args, r, begin, n, sums);
    }
  });
}

template <class A>
void transposed(const LinearArgs& args, const KernelContext& kernel) {
  const quant::Weight& w = *args.weight;
  const int64_t m = args.x.dim(0), n = w.in, tiles = (n + kTile - 1) / kTile;
  A* sums = static_cast<A*>(kernel.workspace);
  A* rows = sums + std::min(kChunk, m) * n;
  for (int64_t first = 0; first < m; first += kChunk) {
    const int64_t chunk = std::min(kChunk, m - first);
    std::fill(sums, sums + chunk * n, A{0});
    for (int64_t begin = 0; begin < w.out; begin += kTransposedRows) {
      const int64_t k = std::min(kTransposedRows, w.out - begin);
      kernel.threads->parallel_for(k, 4, [&](int64_t b, int64_t e) {
        float* to = reinterpret_cast<float*>(rows + b * n);
        w.format->decode_rows(w, begin + b, begin + e, to);
        if constexpr (!std::is_same_v<A, float>)  // widened in place, from the end
          for (int64_t i = (e - b) * n - 1; i >= 0; --i) rows[b * n + i] = static_cast<A>(to[i]);
      });
      kernel.threads->parallel_for(chunk * tiles, grain_of(std::min(n, kTile) * k, 1 << 18), [&](int64_t b, int64_t e) {
        for (int64_t t = b; t < e; ++t) {
          const int64_t r = t / tiles, c = t % tiles * kTile, width = std::min(kTile, n - c);
          A scratch[kTransposedRows];
          const A* x =
              read(args.x, (first + r) * args.x.stride(0) + begin * args.x.stride(1), args.x.stride(1), k, scratch);
          for (int64_t o = 0; o < k; ++o) axpy(x[o], rows + o * n + c, sums + r * n + c, width);
        }
      });
    }
    for_blocks(kernel, chunk, n,
               [&](int64_t r, int64_t c, int64_t width) { finish_row(args, first + r, c, width, sums + r * n + c); });
  }
}

}  // namespace

int64_t linear_plain_workspace(const LinearArgs& args, const KernelContext& kernel) {
  const int64_t size = is_double(args.x.dtype) ? 8 : 4;
  if (args.transposed) return (std::min(kChunk, args.x.dim(0)) + kTransposedRows) * args.weight->in * size;
  return workers_of(kernel) * (kForwardRows + 1) * args.weight->in * 2 * size;
}

void linear_plain(const LinearArgs& args, const KernelContext& kernel) {
  if (args.x.dim(0) == 0) return;
  with_accumulator(args.x.dtype, [&](auto zero) {
    using A = decltype(zero);
    if (args.transposed)
      transposed<A>(args, kernel);
    else
      forward<A>(args, kernel);
  });
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
using cpu::gemm_candidate;
using cpu::Isa;
const Candidate<LinearArgs> kCandidates[] = {
    gemm_candidate<Isa::kAmx, LinearArgs>("amx"),
    gemm_candidate<Isa::kAvx512Bf16, LinearArgs>("avx512_bf16"),
    gemm_candidate<Isa::kAvx512, LinearArgs>("avx512"),
    gemm_candidate<Isa::kAvx2, LinearArgs>("avx2"),
    {"plain", nullptr, cpu::linear_plain, cpu::linear_plain_workspace},
};
}  // namespace
const KernelList<LinearArgs> linear_cpu = {"linear", kCandidates};

std::string_view preferred_format_cpu(const quant::Format& dense) {
  if (cpu::isa() < cpu::Isa::kAvx2) return dense.name;
  return dense.name == "bf16" ? "bf16_tile" : dense.name == "f32" ? "f32_panel" : dense.name;
}
}  // namespace pmetal::ops
