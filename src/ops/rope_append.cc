#include "ops/rope_append.h"

#include "ops/common.h"
#include "ops/fused_cpu.h"

namespace pmetal::ops {

Tensor rope_append(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v, const HeadNorms& norms,
                   const RopeTable& table, const Tensor& k_pages, const Tensor& v_pages, const Tensor& slots) {
  if (ctx.tape()) return {};
  require(q.rank() == 3 && k.rank() == 3 && v.rank() == 3 && k_pages.rank() == 4 && v_pages.rank() == 4 &&
              k.dim(1) == k_pages.dim(1) && v.dim(1) == v_pages.dim(1) && k.dim(2) == k_pages.dim(3) &&
              v.dim(2) == v_pages.dim(3) && q.dim(2) == k.dim(2),
          "[rope_append] rows {}, {} and {} do not fit pages {} and {}", q.shape().to_string(), k.shape().to_string(),
          v.shape().to_string(), k_pages.shape().to_string(), v_pages.shape().to_string());
  require(slots.dtype() == DType::kI64 && slots.numel() == k.dim(0) && table.cos.dim(0) == k.dim(0) &&
              2 * table.cos.dim(1) <= q.dim(2),
          "[rope_append] {} slots and a table {} for {} rows", slots.numel(), table.cos.shape().to_string(), k.dim(0));
  RopeAppendArgs args;
  args.q = q.view(), args.k = k.view(), args.v = v.view();
  if (norms.q) args.q_norm = norms.q.view();
  if (norms.k) args.k_norm = norms.k.view();
  args.cos = table.cos.view(), args.sin = table.sin.view();
  const Tensor y = ctx.empty(q.shape(), q.dtype());
  args.q_out = y.view();
  args.k_pages = k_pages.view(), args.v_pages = v_pages.view(), args.slots = slots.view();
  args.eps = norms.eps;
  const bool done =
      ctx.device().is_cuda() ? try_dispatch(ctx, rope_append_cuda, args) : run_fused(ctx, rope_append_cpu, args);
  return done ? y : Tensor();
}

}  // namespace pmetal::ops
