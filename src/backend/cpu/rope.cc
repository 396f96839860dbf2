// rope_table and rope, plain. A pair (a, b) turns to (a·cos − b·sin, b·cos + a·sin); the inverse has −sin.
#include "backend/cpu/rope.h"

#include "backend/cpu/plain.h"
#include "backend/cpu/simd_level.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::RopeArgs;
using ops::RopeTableArgs;

template <class A>
void table(const RopeTableArgs& args, const KernelContext& kernel) {
  const int64_t half = args.cos.dim(1);
  for_rows(kernel, args.cos.dim(0), half * 16, [&](int64_t t) {
    const float position = static_cast<float>(args.positions.as<int32_t>()[t * args.positions.stride(0)]);
    A* cos = args.cos.as<A>() + t * args.cos.stride(0);
    A* sin = args.sin.as<A>() + t * args.sin.stride(0);
    for (int64_t i = 0; i < half; ++i) {
      const float angle = position * args.inv_freq.as<float>()[i];
      cos[i] = std::cos(static_cast<A>(angle)) * static_cast<A>(args.scale);
      sin[i] = std::sin(static_cast<A>(angle)) * static_cast<A>(args.scale);
    }
  });
}

template <class A>
void turn(const RopeArgs& args, const KernelContext& kernel) {
  constexpr int64_t kMaxHead = 1024;
  const int64_t heads = args.x.dim(1), d = args.x.dim(2), half = args.cos.dim(1);
  PMETAL_ASSERT(d <= kMaxHead && 2 * half <= d, "head_dim {}, rotary half {}", d, half);
  const A sign = args.inverse ? -1 : 1;
  for_rows(kernel, args.x.dim(0), heads * d, [&](int64_t t) {
    A x[kMaxHead], y[kMaxHead], cos_scratch[kMaxHead], sin_scratch[kMaxHead];
    const A* cos = read(args.cos, t * args.cos.stride(0), 1, half, cos_scratch);
    const A* sin = read(args.sin, t * args.sin.stride(0), 1, half, sin_scratch);
    for (int64_t h = 0; h < heads; ++h) {
      load(args.x, t * args.x.stride(0) + h * args.x.stride(1), args.x.stride(2), d, x);
      if (args.interleaved) {
        for (int64_t i = 0; i < half; ++i) {
          y[2 * i] = x[2 * i] * cos[i] - x[2 * i + 1] * (sign * sin[i]);
          y[2 * i + 1] = x[2 * i + 1] * cos[i] + x[2 * i] * (sign * sin[i]);
        }
      } else {
        for (int64_t i = 0; i < half; ++i) {
          y[i] = x[i] * cos[i] - x[i + half] * (sign * sin[i]);
          y[i + half] = x[i + half] * cos[i] + x[i] * (sign * sin[i]);
        }
      }
      std::copy(x + 2 * half, x + d, y + 2 * half);
      store(args.y, t * args.y.stride(0) + h * args.y.stride(1), args.y.stride(2), d, y);
    }
  });
}

}  // namespace

void rope_table_plain(const RopeTableArgs& args, const KernelContext& kernel) {
  if (args.cos.numel() == 0) return;
  with_accumulator(args.cos.dtype, [&](auto zero) { table<decltype(zero)>(args, kernel); });
}

void rope_plain(const RopeArgs& args, const KernelContext& kernel) {
  if (args.x.numel() == 0) return;
  with_accumulator(args.x.dtype, [&](auto zero) { turn<decltype(zero)>(args, kernel); });
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
using cpu::simd_candidate;
const Candidate<RopeTableArgs> kTable[] = {{"plain", nullptr, cpu::rope_table_plain}};
const Candidate<RopeArgs> kRope[] = {simd_candidate<cpu::Avx512Bf16, RopeArgs>("avx512_bf16"),
                                     simd_candidate<cpu::Avx512, RopeArgs>("avx512"),
                                     simd_candidate<cpu::Avx2, RopeArgs>("avx2"),
                                     {"plain", nullptr, cpu::rope_plain}};
}  // namespace
const KernelList<RopeTableArgs> rope_table_cpu = {"rope_table", kTable};
const KernelList<RopeArgs> rope_cpu = {"rope", kRope};
}  // namespace pmetal::ops
