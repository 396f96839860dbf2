#include "ops/norm_rope.h"

#include "ops/common.h"
#include "ops/elementwise.h"
#include "ops/fused_cpu.h"
#include "ops/norm.h"

namespace pmetal::ops {
namespace {

// the result, or nothing where no kernel of the device takes it
Tensor fused(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const RopeTable& table) {
  if (x.rank() != 3) return {};
  Tensor y = ctx.empty_spread_heads(x.shape(), x.dtype());
  const NormRopeArgs args{x.view(), weight.view(), table.cos.view(), table.sin.view(), y.view(), eps};
  const bool taken =
      ctx.device().is_cuda() ? try_dispatch(ctx, norm_rope_cuda, args) : run_fused(ctx, norm_rope_cpu, args);
  return taken ? y : Tensor();
}

// rows that a kernel which took x takes as well
bool is_alike(const Tensor& t, const Tensor& x) {
  if (t.shape() != x.shape() || t.dtype() != x.dtype() || t.strides()[2] != 1) return false;
  return reinterpret_cast<uintptr_t>(t.bytes()) % 16 == 0 && t.strides()[0] % 8 == 0 && t.strides()[1] % 8 == 0;
}

}  // namespace

Tensor norm_rope(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const RopeTable& table) {
  // the CPU's kernel has no gradient for the weight
  const bool is_for_two = !ctx.device().is_cuda() && ctx.records({&weight});
  Tensor y = is_for_two ? Tensor() : fused(ctx, x, weight, eps, table);
  if (!y) return rope(ctx, rms_norm(ctx, x, weight, eps), table);
  if (!ctx.records({&x, &weight})) return y;
  const Saved saved(x);
  const Tensor w = weight.detached();
  const Tensor* inputs[] = {&x, &weight};
  Tensor* outputs[] = {&y};
  ctx.tape()->record(
      "norm_rope", inputs, outputs,
      [saved, w, eps, table](Context& c, std::span<const Tensor> grads, GradSink& sink) {
        const Tensor x = saved.get(c), dy = is_alike(grads[0], x) ? grads[0] : contiguous(c, grads[0].detached());
        NormRopeBackwardArgs args{x.view(), w.view(), table.cos.view(), table.sin.view(), dy.view(), {}, {}, eps};
        Tensor dx, dweight;
        if (sink.wants(0)) {
          dx = sink.place(0, x.shape(), x.dtype());
          if (!dx || !is_alike(dx, x)) dx = c.empty_spread_heads(x.shape(), x.dtype());
          args.dx = dx.view();
        }
        bool direct = false;
        if (sink.wants(1)) {
          dweight = sink.destination(1);
          direct = dweight.defined() && dweight.is_contiguous();
          if (direct) {
            dweight = dweight.reshaped(w.shape());
          } else {
            dweight = c.empty(w.shape(), DType::kF32);
            fill(c, dweight, 0);
          }
          args.dweight = dweight.view();
        }
        const bool taken = c.device().is_cuda() ? try_dispatch(c, norm_rope_backward_cuda, args)
                                                : run_fused(c, norm_rope_backward_cpu, args);
        PMETAL_ASSERT(taken, "norm_rope took x {} forward and not backward", x.shape().to_string());
        sink.add(0, dx);
        if (dweight && !direct) sink.add(1, dweight);
      },
      {[saved, w, eps, table](Context& c) { return fused(c, saved.get(c), w, eps, table); }});
  return y;
}

}  // namespace pmetal::ops
