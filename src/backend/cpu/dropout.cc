// dropout, plain. A key is drawn from (seed; module, step); element e of the row with identity `token` is kept when
// word e % 4 of Philox(key; e / 4, token) is at least p.
#include "backend/cpu/elementwise.h"
#include "backend/cpu/plain.h"
#include "base/rng.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

template <class A>
void run(const ops::DropoutArgs& args, const KernelContext& kernel) {
  const uint32_t step = args.step_at ? static_cast<uint32_t>(*args.step_at.as<int32_t>()) : args.step;
  const PhiloxBlock drawn =
      philox4x32(philox_key(args.seed), {args.module, step, static_cast<uint32_t>(RngPurpose::kDropout) << 8, 0});
  const std::array<uint32_t, 2> key = {drawn[0], drawn[1]};
  const Rows x(args.x), y(args.y);
  const A scale = A{1} / (A{1} - static_cast<A>(args.p));
  for_blocks(kernel, x.rows, x.n, [&](int64_t r, int64_t c, int64_t n) {
    const uint64_t token = static_cast<uint64_t>(args.row_ids.as<int64_t>()[r * args.row_ids.stride(0)]);
    A v[kBlock];
    load(args.x, x.offset(r) + c * x.step, x.step, n, v);
    for (int64_t i = 0; i < n; i += 4) {
      const PhiloxBlock words = philox4x32(key, {static_cast<uint32_t>((c + i) / 4), static_cast<uint32_t>(token),
                                                 static_cast<uint32_t>(token >> 32), 0});
      for (int64_t j = 0; j < std::min<int64_t>(4, n - i); ++j)
        v[i + j] = uniform_open(words[static_cast<size_t>(j)]) < args.p ? A{0} : v[i + j] * scale;
    }
    store(args.y, y.offset(r) + c * y.step, y.step, n, v);
  });
}

}  // namespace

void dropout_plain(const ops::DropoutArgs& args, const KernelContext& kernel) {
  with_accumulator(args.x.dtype, [&](auto zero) { run<decltype(zero)>(args, kernel); });
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
const Candidate<DropoutArgs> kCandidates[] = {{"plain", nullptr, cpu::dropout_plain}};
}
const KernelList<DropoutArgs> dropout_cpu = {"dropout", kCandidates};
}  // namespace pmetal::ops
