#include "ops/top_logits.h"

#include <bit>

#include "ops/common.h"
#include "ops/elementwise.h"

namespace pmetal::ops {
namespace {

constexpr int64_t kCapacity = 1024;
constexpr float kBinsPerUnit = 64;  // of the kernel
constexpr int64_t kHead = 3;

}  // namespace

std::vector<TopLogits> top_logits(Context& ctx, const Tensor& logits, int64_t rows, int64_t want) {
  if (!ctx.device().is_cuda()) return {};
  require(logits.rank() == 2 && rows <= logits.dim(0) && want > 0 && want <= kCapacity / 2,
          "[top_logits] the {} largest of {} rows of {}", want, rows, logits.shape().to_string());
  const Tensor out = ctx.empty({rows, kHead + 2 * kCapacity}, DType::kI32);
  TopLogitsArgs args;
  const Tensor part = logits.narrowed(0, 0, rows);
  args.logits = part.view();
  args.out = out.view();
  args.want = want;
  args.capacity = kCapacity;
  if (!try_dispatch(ctx, top_logits_cuda, args)) return {};
  const Tensor host = to_host(ctx, out);
  std::vector<TopLogits> all(static_cast<size_t>(rows));
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t* row = host.data<int32_t>() + r * out.dim(1);
    TopLogits& top = all[static_cast<size_t>(r)];
    const int32_t n = row[0];
    if (n <= 0 || n > kCapacity) continue;
    top.is_whole = true;
    // the kernel put those in whose rounded distance to the largest falls short of the next bin
    top.rest_below = std::bit_cast<float>(row[1]) - (static_cast<float>(row[2]) + 0.5f) / kBinsPerUnit;
    for (int32_t i = 0; i < n; ++i)
      top.pairs.push_back({row[kHead + i], std::bit_cast<float>(row[kHead + kCapacity + i])});
  }
  return all;
}

}  // namespace pmetal::ops
