#include "nn/linear.h"

#include "ops/embedding.h"
#include "ops/joined_linear.h"

namespace pmetal::nn {
namespace {

template <class Module>
auto* adapter_of(const Module& module, int32_t index) {
  return index >= 0 && index < static_cast<int32_t>(module.adapters.size())
             ? module.adapters[static_cast<size_t>(index)].get()
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

namespace {

// The adapter that acts on all rows, or -1 where they differ or the base model is meant.
int uniform_adapter(const Batch& batch) {
  if (batch.adapter.empty()) return 0;
  for (int32_t a : batch.adapter)
    if (a != batch.adapter[0]) return -1;
  return batch.adapter[0];
}

// Results of linears whose updates go with their weights' product; nothing where this step or its adapter asks for
// more.
std::vector<Tensor> with_updates(Context& ctx, const Batch& batch, std::span<const Linear* const> linears,
                                 const Tensor& x) {
  const std::shared_ptr<const UpdateGroup>& group = linears[0]->group;
  if (!group || group->ranks.size() != linears.size() || uniform_adapter(batch) != group->adapter) return {};
  ops::LoraGroup matrix = group->matrix;
  if (x.dtype() != matrix.matrix.dtype()) return {};
  std::vector<ops::LoraPart> parts;
  const std::byte* at = matrix.matrix.bytes();
  bool has_scale = false;
  for (size_t i = 0; i < linears.size(); ++i) {
    const Linear& l = *linears[i];
    if (l.group != group || l.weight.planes.empty() || l.weight.planes[0].bytes.data() != at) return {};
    at += at ? l.out() * matrix.matrix.strides()[0] * size_of(x.dtype()) : 0;
    if (l.bias.requires_grad()) return {};
    ops::LoraPart part{l.out(), {}, {}};
    if (const LinearAdapter* adapter = adapter_of(l, group->adapter)) {
      const std::optional<LinearAdapter::LowRank> update = adapter->low_rank(ctx, batch);
      if (!update || update->a.dim(0) != group->ranks[i] || (has_scale && update->scale != matrix.scale)) return {};
      part.a = update->a;
      part.b = update->b;
      matrix.scale = update->scale;
      has_scale = true;
    } else if (group->ranks[i] != 0) {
      return {};
    }
    parts.push_back(std::move(part));
  }
  return ops::lora_group(ctx, x, matrix, parts);
}

}  // namespace

Tensor Linear::forward(Context& ctx, const Batch& batch, const Tensor& x) const {
  const Linear* const one[] = {this};
  if (const std::vector<Tensor> y = with_updates(ctx, batch, one, x); !y.empty()) return y[0];
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
    if (l->bias.defined() || l->trainable.defined() || !w.defined() || !w.format->is_dense || w.row_step) return {};
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

// The trainable weights of the group where a GPU may take them as one matrix; else nothing.
std::vector<Tensor> trained_together(const Context& ctx, std::span<const Linear* const> linears, const Tensor& x) {
  const bool is_gpu = ctx.device().is_cuda() || (ctx.planned() && ctx.planned()->is_cuda());
  if (!is_gpu || linears.size() < 2) return {};
  std::vector<Tensor> weights;
  for (const Linear* l : linears) {
    for (const auto& adapter : l->adapters)
      if (adapter) return {};
    if (!l->trainable.defined() || l->bias.defined() || l->trainable.dtype() != x.dtype()) return {};
    weights.push_back(l->trainable);
  }
  return ops::joined_weights(weights).defined() ? weights : std::vector<Tensor>{};
}

}  // namespace

std::vector<Tensor> forward_group(Context& ctx, const Batch& batch, std::span<const Linear* const> linears,
                                  const Tensor& x) {
  std::vector<Tensor> out = with_updates(ctx, batch, linears, x);
  if (!out.empty()) return out;
  if (const quant::Weight all = joined(ctx, linears); all.defined()) {
    const Tensor y = ops::linear(ctx, x, all);
    int64_t column = 0;
    for (const Linear* linear : linears) {
      out.push_back(y.narrowed(1, column, linear->out()));
      column += linear->out();
    }
    return out;
  }
  if (const std::vector<Tensor> weights = trained_together(ctx, linears, x); !weights.empty())
    return ops::joined_linear(ctx, x, weights);
  for (const Linear* linear : linears) out.push_back(linear->forward(ctx, batch, x));
  return out;
}

int64_t room_for(const Context& ctx, const Linear& linear) {
  if (linear.group) return linear.group->matrix.matrix.strides()[0] - linear.group->matrix.in;
  const quant::Weight& w = linear.weight;
  return w.defined() && w.planes[0].dtype == DType::kBF16 ? ctx.spread_room(linear.in(), DType::kBF16) : 0;
}

void make_room_for_updates(Context& ctx, std::span<Linear* const> linears, int index, std::span<const int64_t> ranks) {
  PMETAL_ASSERT(!linears.empty() && linears.size() == ranks.size() && linears.size() <= size_t{ops::kMostLoraParts});
  if (!ctx.device().is_cuda() && !(ctx.planned() && ctx.planned()->is_cuda())) return;
  const DType dtype = linears[0]->weight.defined() ? linears[0]->weight.planes[0].dtype : DType::kF32;
  int64_t out = 0, rank = 0;
  bool has_bias = false;
  for (size_t i = 0; i < linears.size(); ++i) {
    const Linear& l = *linears[i];
    if (!l.weight.defined() || !l.weight.format->is_dense || l.weight.planes[0].dtype != dtype || l.weight.row_step)
      return;
    out += l.out();
    rank += ranks[i];
    has_bias |= l.bias.defined();
  }
  if (rank == 0) return;
  auto group = std::make_shared<UpdateGroup>();
  group->matrix = ops::empty_lora_group(ctx, out, linears[0]->in(), ops::lora_rank(rank), dtype);
  group->ranks.assign(ranks.begin(), ranks.end());
  group->adapter = index;
  if (has_bias) {
    group->matrix.bias = ctx.empty({out}, dtype);
    ops::fill(ctx, group->matrix.bias, 0);
  }
  int64_t row = 0;
  for (Linear* l : linears) {
    const Tensor to = group->matrix.matrix.narrowed(0, row, l->out());
    ops::copy(ctx, Tensor(l->weight.planes[0].bytes, {l->out(), l->in()}, dtype), to.narrowed(1, 0, l->in()));
    if (l->bias.defined()) ops::copy(ctx, l->bias.detached(), group->matrix.bias.narrowed(0, row, l->out()));
    const int64_t step = to.strides()[0];
    l->weight.planes[0].bytes = to.buffer().slice(0, l->out() * step * size_of(dtype));
    l->weight.row_step = step;
    l->group = group;
    row += l->out();
  }
}

Tensor Embedding::forward(Context& ctx, const Batch& batch, DType dtype, float scale) const {
  const Tensor& ids = batch.tokens;
  const Tensor base = trainable.defined() ? ops::embedding_dense(ctx, ids, trainable, dtype, scale, padding_index)
                                          : ops::embedding(ctx, ids, weight, dtype, scale);
  bool any = false;
  for (const auto& adapter : adapters) any |= adapter != nullptr;
  if (!any) return base;
  const std::vector<Run> runs = adapter_runs(batch, ids.dim(0));
  const bool is_one = runs.size() == 1;
  std::vector<Tensor> parts;
  for (const Run& run : runs) {
    const int64_t rows = run.end - run.begin;
    const Tensor part = is_one ? base : ops::narrow(ctx, base, 0, run.begin, rows);
    EmbeddingAdapter* adapter = adapter_of(*this, run.adapter);
    parts.push_back(adapter ? adapter->apply(ctx, *this, ids.narrowed(0, run.begin, rows), part, scale) : part);
  }
  if (parts.empty()) return base;
  return is_one ? parts[0] : ops::concat_rows(ctx, parts);
}

}  // namespace pmetal::nn
