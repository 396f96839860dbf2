#include "models/model.h"

#include <nlohmann/json.hpp>

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

Tensor forward(Context& ctx, Model& model, const nn::Batch& batch, const ForwardOptions& options) {
  const std::shared_ptr<StepValues> step = model.begin(ctx, batch);
  Hidden x = model.embed(ctx, batch);
  if (options.taps) options.taps->push_back(x.sum(ctx).detached());
  for (int64_t i = 0; i < model.info().layers; ++i) {
    if (options.recompute_blocks && ctx.tape()) {
      // the batch is copied: the backward runs after the caller may have let go of it
      x = {ops::checkpoint(ctx, x.sum(ctx),
                           [&model, i, batch, step](Context& c, const Tensor& in) {
                             return model.block(c, i, {in, {}}, batch, *step).sum(c);
                           }),
           {}};
    } else {
      x = model.block(ctx, i, x, batch, *step);
    }
    if (options.taps) options.taps->push_back(x.sum(ctx).detached());
  }
  return model.final(ctx, x, batch);
}

Tensor logits(Context& ctx, Model& model, const Tensor& hidden) {
  const Head head = model.head();
  const DType out = hidden.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  Tensor z;
  if (head.linear && (head.linear->trainable.defined() || !head.linear->adapters.empty())) {
    const nn::Batch none;
    z = ops::cast(ctx, head.linear->forward(ctx, none, hidden), out);
  } else if (head.linear) {
    z = ops::linear(ctx, hidden, head.linear->weight, head.linear->bias, out);
  } else {
    z = head.dense.defined() ? ops::linear_dense(ctx, hidden, head.dense, {}, out)
                             : ops::linear(ctx, hidden, *head.frozen, {}, out);
  }
  if (head.logit_scale != 1) z = ops::affine(ctx, z, head.logit_scale);
  if (head.softcap > 0)
    z = ops::affine(ctx, ops::unary(ctx, ops::affine(ctx, z, 1 / head.softcap), ops::Unary::kTanh), head.softcap);
  return z;
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
