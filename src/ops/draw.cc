#include "ops/draw.h"

#include <cstring>

#include "ops/common.h"
#include "ops/elementwise.h"

namespace pmetal::ops {

static_assert(sizeof(DrawRow) == 48, "the kernel reads it");

std::vector<int32_t> draw(Context& ctx, const Tensor& logits, std::span<const DrawRow> rows) {
  if (!ctx.device().is_cuda() || rows.empty()) return {};
  require(logits.rank() == 2 && logits.dtype() == DType::kF32, "[draw] the logits are {} {}", name_of(logits.dtype()),
          logits.shape().to_string());
  const auto n = static_cast<int64_t>(rows.size());
  const Tensor host(allocate_host(n * static_cast<int64_t>(sizeof(DrawRow))), {n, sizeof(DrawRow)}, DType::kU8);
  std::memcpy(host.bytes(), rows.data(), rows.size_bytes());
  DrawArgs args;
  for (const DrawRow& r : rows) {
    require(r.row >= 0 && r.row < logits.dim(0) && r.vocabulary > 0 && r.vocabulary <= logits.dim(1) &&
                r.temperature > 0 && r.top_p > 0 && r.log_min_p <= 0,
            "[draw] row {} with {} ids of {}, temperature {}, top-p {}", r.row, r.vocabulary,
            logits.shape().to_string(), r.temperature, r.top_p);
    args.has_top_p |= r.top_p < 1;
  }
  const Tensor there = to_device(ctx, host), out = ctx.empty({n}, DType::kI32);
  args.logits = logits.view();
  args.rows = there.view();
  args.out = out.view();
  if (!try_dispatch(ctx, draw_cuda, args)) return {};
  const Tensor tokens = to_host(ctx, out);
  return {tokens.data<int32_t>(), tokens.data<int32_t>() + n};
}

}  // namespace pmetal::ops
