#include "ops/attention.h"

#include "ops/common.h"
#include "ops/elementwise.h"

namespace pmetal::ops {
namespace {

void check(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionRows& rows,
           const AttentionOptions& options) {
  const bool paged = rows.page_table.defined();
  require(paged != rows.cu_k.defined(), "[attention] keys are either contiguous (cu_k) or paged (page_table)");
  require(q.rank() == 3, "[attention] q must be [rows, heads, d], is {}", q.shape().to_string());
  require(k.rank() == (paged ? 4 : 3) && v.rank() == k.rank(), "[attention] {} keys are {}, values {}",
          paged ? "paged" : "contiguous", k.shape().to_string(), v.shape().to_string());
  require(k.dim(-1) == q.dim(2), "[attention] head sizes differ: q is {}, k is {}", q.shape().to_string(),
          k.shape().to_string());
  require(k.dim(1) == v.dim(1) && k.dim(1) > 0 && q.dim(1) % k.dim(1) == 0,
          "[attention] {} query heads, {} key heads, {} value heads", q.dim(1), k.dim(1), v.dim(1));
  require(!paged || (k.dim(2) == kAttentionBlock && v.dim(2) == kAttentionBlock),
          "[attention] pages hold {} keys, must hold {}", k.dim(2), kAttentionBlock);
  require(rows.cu_q.dim(0) == rows.sequences() + 1, "[attention] {} borders for {} sequences", rows.cu_q.dim(0),
          rows.sequences());
  require(options.mask.window >= 0 && options.mask.chunk >= 0, "[attention] window {}, chunk {}", options.mask.window,
          options.mask.chunk);
  if (options.sinks)
    require(options.sinks.numel() == q.dim(1), "[attention] {} sinks for {} query heads", options.sinks.numel(),
            q.dim(1));
}

AttentionArgs arguments(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                        const AttentionRows& rows, const AttentionOptions& options) {
  AttentionArgs args;
  args.q = q.view();
  args.k = k.view();
  args.v = v.view();
  args.out = out.view();
  if (lse) args.lse = lse.view();
  args.cu_q = rows.cu_q.view();
  args.kv_len = rows.kv_len.view();
  if (rows.cu_k) args.cu_k = rows.cu_k.view();
  if (rows.page_table) args.page_table = rows.page_table.view();
  if (options.sinks) args.sinks = options.sinks.view();
  args.mask = options.mask;
  args.scale = options.scale;
  args.softcap = options.softcap;
  args.max_q = rows.max_q;
  args.max_kv = rows.max_kv;
  return args;
}

}  // namespace

Tensor attention(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v, const AttentionRows& rows,
                 const AttentionOptions& options) {
  check(q, k, v, rows, options);
  const bool records = ctx.records({&q, &k, &v, &options.sinks});
  Tensor out = ctx.empty_rows(q.dim(0), q.dim(1) * v.dim(-1), q.dtype(), options.room).split_last(q.dim(1));
  Tensor lse = records ? ctx.empty({q.dim(0), q.dim(1)}, wide(q.dtype())) : Tensor();
  dispatch(ctx, attention_cpu, attention_cuda, arguments(q, k, v, out, lse, rows, options));
  if (!records) return out;
  require(rows.cu_k.defined(), "[attention] gradients want contiguous keys");
  const Tensor* inputs[] = {&q, &k, &v, &options.sinks};
  Tensor* outputs[] = {&out};
  ctx.tape()->record("attention", inputs, outputs,
                     [sq = Saved(q), sk = Saved(k), sv = Saved(v), saved_out = out.detached(), lse, rows, options](
                         Context& c, std::span<const Tensor> grads, GradSink& sink) {
                       const Tensor q = sq.get(c), k = sk.get(c), v = sv.get(c);
                       AttentionBackwardArgs args;
                       args.forward = arguments(q, k, v, saved_out, lse, rows, options);
                       args.dout = grads[0].view();
                       const auto gradient_of = [&](int input, const Tensor& t) {
                         const Tensor place = sink.place(input, t.shape(), t.dtype());
                         return place ? place : c.empty_spread_heads(t.shape(), t.dtype());
                       };
                       const Tensor dq = gradient_of(0, q), dk = gradient_of(1, k), dv = gradient_of(2, v);
                       Tensor dsinks;
                       args.dq = dq.view();
                       args.dk = dk.view();
                       args.dv = dv.view();
                       if (sink.wants(3)) {
                         dsinks = c.empty(options.sinks.shape(), wide(q.dtype()));
                         fill(c, dsinks, 0);
                         args.dsinks = dsinks.view();
                       }
                       dispatch(c, attention_backward_cpu, attention_backward_cuda, args);
                       sink.add(0, dq);
                       sink.add(1, dk);
                       sink.add(2, dv);
                       sink.add(3, dsinks);
                     });
  return out;
}

}  // namespace pmetal::ops
