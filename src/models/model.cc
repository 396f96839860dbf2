#include "models/model.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "formats/json_reader.h"

namespace pmetal::models {

#define X(stem) extern const Family family_##stem;
#include "models/families.inc"
#undef X

std::span<const Family* const> families() {
#define X(stem) &family_##stem,
  static const Family* const table[] = {
#include "models/families.inc"
  };
#undef X
  return table;
}

const Family& family_of(const nlohmann::ordered_json& config, const std::string& source) {
  const std::string type = formats::JsonReader(config, source).string("model_type");
  std::string known;
  for (const Family* f : families())
    for (std::string_view t : f->model_types) {
      if (t == type) return *f;
      known += (known.empty() ? "" : ", ") + std::string(t);
    }
  fail(ErrorCode::kUnsupported, "{}: field \"model_type\": \"{}\" is not supported; supported: {}", source, type,
       known);
}

std::unique_ptr<Model> build(const nlohmann::ordered_json& config, const std::string& source) {
  return family_of(config, source).build(config, source);
}

namespace {

// uniform noise per sequence; the draw of an element depends on seed, step, row identity and feature alone
Tensor embedding_noise(Context& ctx, const nn::Batch& batch, int64_t hidden, DType dtype, float alpha) {
  PMETAL_ASSERT(batch.row_ids.defined());
  const Tensor ids = ops::to_host(ctx, batch.row_ids);
  std::vector<float> noise(static_cast<size_t>(batch.n_tokens() * hidden));
  const auto key = philox_key(batch.dropout.seed);
  for (int64_t s = 0; s < batch.n_sequences(); ++s) {
    const int64_t begin = batch.cu_q[static_cast<size_t>(s)], end = batch.cu_q[static_cast<size_t>(s) + 1];
    const float size = alpha / std::sqrt(static_cast<float>((end - begin) * hidden));
    for (int64_t r = begin; r < end; ++r) {
      const uint64_t id = static_cast<uint64_t>(ids.data<int64_t>()[r]);
      for (int64_t c = 0; c < hidden; c += 4) {
        const PhiloxBlock x =
            philox4x32(key, {static_cast<uint32_t>(c >> 2), static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32),
                             static_cast<uint32_t>(RngPurpose::kNeftune) << 24 ^ batch.dropout.step});
        for (int64_t i = 0; i < 4 && c + i < hidden; ++i)
          noise[static_cast<size_t>(r * hidden + c + i)] = size * (2 * uniform_open(x[static_cast<size_t>(i)]) - 1);
      }
    }
  }
  return ops::cast(ctx, ops::to_device(ctx, host_tensor<float>(noise, Shape{batch.n_tokens(), hidden}, DType::kF32)),
                   dtype);
}

}  // namespace

Tensor forward(Context& ctx, Model& model, const nn::Batch& batch, const ForwardOptions& options) {
  const std::shared_ptr<StepValues> step = model.begin(ctx, batch);
  Hidden x = model.embed(ctx, batch);
  if (options.embedding_noise > 0)
    x = {ops::add(ctx, x.sum(ctx),
                  embedding_noise(ctx, batch, model.info().hidden, model.dtype, options.embedding_noise)),
         {}};
  if (options.taps) options.taps->push_back(x.sum(ctx).detached());
  const int64_t layers = model.info().layers;
  if (ctx.device().is_cuda() && !ctx.tape() && !options.taps && batch.memory && batch.n_tokens() == 1 &&
      !x.delta.defined())
    if (const Tensor y = model.all_blocks(ctx, x.residual, batch, *step)) return model.final(ctx, {y, {}}, batch);
  const int64_t group = ctx.tape() && !options.taps ? options.recompute_group : 0;
  for (int64_t i = 0; i < layers; i += std::max<int64_t>(group, 1)) {
    if (group > 0) {
      // the batch is copied: the backward runs after the caller may have let go of it
      x = {ops::checkpoint(ctx, x.sum(ctx),
                           [&model, i, end = std::min(layers, i + group), batch, step](Context& c, const Tensor& in) {
                             Hidden h{in, {}};
                             for (int64_t j = i; j < end; ++j) h = model.block(c, j, h, batch, *step);
                             return h.sum(c);
                           }),
           {}};
    } else {
      const RangeScope range(ctx, ctx.range_marks() ? fmt::format("block {}", i).c_str() : "");
      x = model.block(ctx, i, x, batch, *step);
    }
    if (options.taps) options.taps->push_back(x.sum(ctx).detached());
  }
  return model.final(ctx, x, batch);
}

namespace {

Tensor shape_logits(Context& ctx, const Head& head, Tensor z) {
  if (head.logit_scale != 1) z = ops::affine(ctx, z, head.logit_scale);
  if (head.softcap > 0)
    z = ops::affine(ctx, ops::unary(ctx, ops::affine(ctx, z, 1 / head.softcap), ops::Unary::kTanh), head.softcap);
  return z;
}

// every row of the head's input as a sequence of its own, with the adapter of the sequence it came from
nn::Batch rows_as_sequences(Context& ctx, const nn::Batch& batch, int64_t n_rows) {
  nn::Batch rows;
  for (int64_t r = 0; r <= n_rows; ++r) rows.cu_q.push_back(static_cast<int32_t>(r));
  if (batch.adapter.empty()) return rows;
  const Tensor picked = batch.output_rows.defined() ? ops::to_host(ctx, batch.output_rows) : Tensor();
  size_t s = 0;
  for (int64_t r = 0; r < n_rows; ++r) {
    const int32_t token = picked.defined() ? picked.data<int32_t>()[r] : static_cast<int32_t>(r);
    while (token < batch.cu_q[s]) --s;
    while (token >= batch.cu_q[s + 1]) ++s;
    rows.adapter.push_back(batch.adapter[s]);
  }
  return rows;
}

bool has_adapters(const Head& head) { return head.linear && !head.linear->adapters.empty(); }

}  // namespace

Tensor logits(Context& ctx, Model& model, const Tensor& hidden, const nn::Batch* batch) {
  const Head head = model.head();
  const DType out = hidden.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  if (has_adapters(head)) {
    nn::Batch rows;
    if (batch)
      rows = rows_as_sequences(ctx, *batch, hidden.dim(0));
    else
      rows.cu_q = {0, static_cast<int32_t>(hidden.dim(0))};
    return shape_logits(ctx, head, ops::cast(ctx, head.linear->forward(ctx, rows, hidden), out));
  }
  return shape_logits(ctx, head,
                      head.dense.defined() ? ops::linear_dense(ctx, hidden, head.dense, {}, out)
                                           : ops::linear(ctx, hidden, *head.frozen, {}, out));
}

ops::HeadLoss loss(Context& ctx, Model& model, const Tensor& hidden, const Tensor& labels, const Tensor& row_scale,
                   ops::HeadLossOptions options) {
  Head head = model.head();
  options.logit_scale = head.logit_scale;
  options.softcap = head.softcap;
  if (has_adapters(head)) {
    const auto& adapter = head.linear->adapters[0];
    const Tensor replacement = adapter ? adapter->replacement() : Tensor();
    if (adapter && !replacement.defined()) {
      PMETAL_ASSERT(options.z_loss == 0 && options.label_smoothing == 0);
      const Tensor z = logits(ctx, model, hidden);
      const Tensor lse = ops::logsumexp(ctx, z);
      ops::HeadLoss r;
      r.nll = ops::sub(ctx, lse, ops::gather_columns(ctx, z, labels));
      r.loss = ops::sum(ctx, ops::mul(ctx, r.nll, ops::cast(ctx, row_scale, z.dtype())));
      TapeScope off(ctx, nullptr);
      const Tensor p = ops::softmax(ctx, z.detached());
      r.entropy = ops::sub(ctx, lse.detached(), ops::sum_rows(ctx, ops::mul(ctx, p, z.detached())));
      const Tensor host = ops::to_host(ctx, z.detached()), wanted = ops::to_host(ctx, labels);
      std::vector<uint8_t> correct(static_cast<size_t>(z.dim(0)));
      for (int64_t i = 0; i < z.dim(0); ++i) {
        const float* row = host.data<float>() + i * z.dim(1);
        correct[static_cast<size_t>(i)] = std::max_element(row, row + z.dim(1)) - row == wanted.data<int32_t>()[i];
      }
      r.correct = host_tensor<uint8_t>(correct, Shape{z.dim(0)}, DType::kU8);
      r.nll = r.nll.detached();
      return r;
    }
    if (replacement.defined()) head.dense = replacement, head.frozen = nullptr;
  }
  return ops::head_loss(ctx, hidden, head.frozen, head.dense, labels, row_scale, options);
}

ParameterCount count_parameters(Model& model) {
  struct Counter : ParameterVisitor {
    ParameterCount n;
    void on(nn::Linear& l) override {
      n.total += l.in() * l.out() + (l.has_bias() ? l.out() : 0);
      n.matrices += l.in() * l.out();
    }
    void on(nn::Embedding& e) override {
      n.total += e.vocabulary() * e.dim();
      n.embedding += e.vocabulary() * e.dim();
    }
    void on(nn::Parameter& p) override { n.total += p.shape.numel(); }
  } counter;
  model.visit(counter);
  if (model.info().tied_head) counter.n.matrices += counter.n.embedding;
  return counter.n;
}

}  // namespace pmetal::models
