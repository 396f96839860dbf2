#include "nn/linear.h"

#include "ops/embedding.h"

namespace pmetal::nn {
namespace {

LinearAdapter* adapter_of(const Linear& linear, int32_t index) {
  return index >= 0 && index < static_cast<int32_t>(linear.adapters.size())
             ? linear.adapters[static_cast<size_t>(index)].get()
             : nullptr;
}

// Rows [begin, end) of consecutive sequences with the same adapter.
struct Run {
  int64_t begin, end;
  int32_t adapter;
};

std::vector<Run> adapter_runs(const Batch& batch, int64_t rows) {
  if (batch.adapter.empty()) return {{0, rows, 0}};
  PMETAL_ASSERT(batch.adapter.size() + 1 == batch.cu_q.size(), "{} adapters for {} sequences", batch.adapter.size(),
                batch.n_sequences());
  std::vector<Run> runs;
  for (size_t s = 0; s < batch.adapter.size(); ++s) {
    if (!runs.empty() && runs.back().adapter == batch.adapter[s])
      runs.back().end = batch.cu_q[s + 1];
    else
      runs.push_back({batch.cu_q[s], batch.cu_q[s + 1], batch.adapter[s]});
  }
  return runs;
}

// The base product of all rows is made once, when the first run asks for it.
Tensor with_adapters(Context& ctx, const Batch& batch, const Linear& linear, const Tensor& x) {
  bool any = false;
  for (const auto& adapter : linear.adapters) any |= adapter != nullptr;
  if (!any) return linear.forward_base(ctx, x);
  const std::vector<Run> runs = adapter_runs(batch, x.dim(0));
  const bool is_one = runs.size() == 1;
  Tensor base;
  std::vector<Tensor> parts;
  for (const Run& run : runs) {
    const int64_t rows = run.end - run.begin;
    LinearAdapter* adapter = adapter_of(linear, run.adapter);
    const Tensor own = !adapter || is_one ? x : ops::narrow(ctx, x, 0, run.begin, rows);
    if (adapter)
      if (const Tensor part = adapter->apply_fused(ctx, batch, run.begin, linear, own)) {
        parts.push_back(part);
        continue;
      }
    if (!base) base = linear.forward_base(ctx, x);
    const Tensor part = is_one ? base : ops::narrow(ctx, base, 0, run.begin, rows);
    parts.push_back(adapter ? adapter->apply(ctx, batch, run.begin, linear, own, part) : part);
  }
  if (parts.empty()) return linear.forward_base(ctx, x);
  return is_one ? parts[0] : ops::concat_rows(ctx, parts);
}

}  // namespace

Tensor Linear::forward_base(Context& ctx, const Tensor& x) const {
  PMETAL_ASSERT(trainable.defined() != weight.defined(), "{}: wants a frozen or a trainable weight, one of them",
                name_);
  return trainable.defined() ? ops::linear_dense(ctx, x, trainable, bias) : ops::linear(ctx, x, weight, bias);
}

Tensor Linear::forward(Context& ctx, const Batch& batch, const Tensor& x) const {
  return with_adapters(ctx, batch, *this, x);
}

namespace {

// The one weight that the group's weights are when they lie side by side on a GPU, frozen and plain; else undefined.
quant::Weight joined(const Context& ctx, std::span<const Linear* const> linears) {
  if (!ctx.device().is_cuda() || ctx.tape() || linears.size() < 2) return {};
  quant::Weight all;
  int64_t bytes = 0;
  for (const Linear* l : linears) {
    for (const auto& adapter : l->adapters)
      if (adapter) return {};
    const quant::Weight& w = l->weight;
    if (l->bias.defined() || l->trainable.defined() || !w.defined() || !w.format->is_dense) return {};
    if (!all.defined())
      all = {w.format, 0, w.in, {w.planes[0]}, w.version};
    else if (w.format != all.format || w.in != all.in || w.planes[0].bytes.data() != all.planes[0].bytes.data() + bytes)
      return {};
    all.out += w.out;
    bytes += w.planes[0].bytes.size_bytes();
  }
  all.planes[0].bytes = all.planes[0].bytes.slice(0, bytes);
  return all;
}

}  // namespace

std::vector<Tensor> forward_group(Context& ctx, const Batch& batch, std::span<const Linear* const> linears,
                                  const Tensor& x) {
  std::vector<Tensor> out;
  if (const quant::Weight all = joined(ctx, linears); all.defined()) {
    const Tensor y = ops::linear(ctx, x, all);
    int64_t column = 0;
    for (const Linear* linear : linears) {
      out.push_back(y.narrowed(1, column, linear->out()));
      column += linear->out();
    }
    return out;
  }
  for (const Linear* linear : linears) out.push_back(linear->forward(ctx, batch, x));
  return out;
}

Tensor Embedding::forward(Context& ctx, const Tensor& ids, DType dtype, float scale) const {
  return trainable.defined() ? ops::embedding_dense(ctx, ids, trainable, dtype, scale, padding_index)
                             : ops::embedding(ctx, ids, weight, dtype, scale);
}

}  // namespace pmetal::nn
