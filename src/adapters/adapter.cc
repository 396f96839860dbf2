// New adapters, and merging into weights in memory.
#include "adapters/adapter.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "adapters/peft_adapter.h"
#include "base/rng.h"
#include "ops/device.h"

namespace pmetal::adapters {
namespace {

enum class Draw { kUniform, kNormal };

// `size` times U(-1, 1) or N(0, 1); an element depends on seed, module and index.
Tensor draw(Context& ctx, const Shape& shape, DType dtype, uint64_t seed, uint64_t stream, Draw kind, float size) {
  if (ctx.device().is_meta()) return ctx.empty(shape, dtype);
  PhiloxStream rng(seed, RngPurpose::kInit, stream);
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  for (float& v : values) v = size * static_cast<float>(kind == Draw::kNormal ? rng.normal() : 2 * rng.uniform() - 1);
  return ops::cast(ctx, ops::to_device(ctx, host_tensor<float>(values, shape, DType::kF32)), dtype);
}

Tensor zeros(Context& ctx, const Shape& shape, DType dtype) {
  Tensor t = ctx.empty(shape, dtype);
  ops::fill(ctx, t, 0);
  return t;
}

Tensor from_floats(Context& ctx, const std::vector<float>& values, const Shape& shape, DType dtype) {
  return ops::cast(ctx, ops::to_device(ctx, host_tensor<float>(values, shape, DType::kF32)), dtype);
}

// [out, in] of a Linear or of the token table
template <class Module>
Tensor dense_copy(Context& ctx, const Module& module, int64_t rows, int64_t columns, DType dtype) {
  if (ctx.device().is_meta()) return ctx.empty({rows, columns}, dtype);
  std::vector<float> values(static_cast<size_t>(rows * columns));
  const quant::Weight weight = ops::host_copy(module.weight);
  weight.format->decode_rows(weight, 0, rows, values.data());
  return from_floats(ctx, values, {rows, columns}, dtype);
}

std::string last_name(const std::string& module) { return module.substr(module.rfind('.') + 1); }

std::string list_of(const std::set<std::string>& names) {
  std::string list;
  for (const std::string& n : names) list += (list.empty() ? "" : ", ") + n;
  return list;
}

[[noreturn]] void nothing_selected(models::Model& model, const ModuleFinder& found) {
  std::set<std::string> names;
  for (const nn::Linear* l : found.linears) names.insert(last_name(l->name()));
  for (const nn::Embedding* e : found.embeddings) names.insert(last_name(e->name()));
  fail(ErrorCode::kInvalidInput, "target_modules: no module of this {} model matches; its modules are {}",
       model.info().model_type, list_of(names));
}

// Every name of modules_to_save must mean something that can be saved whole.
void check_modules_to_save(const ModuleFinder& found, const PeftConfig& config) {
  for (const std::string& name : config.modules_to_save) {
    PeftConfig one;
    one.modules_to_save = {name};
    std::set<std::string> names;
    bool hit = false;
    const auto look = [&](const std::string& module) {
      names.insert(last_name(module));
      hit |= one.saves_whole(module);
    };
    for (const nn::Linear* l : found.linears) look(l->name());
    for (const nn::Embedding* e : found.embeddings) look(e->name());
    for (const nn::Parameter* p : found.parameters)
      if (one.saves_whole(p->name.substr(0, p->name.rfind('.'))))
        fail(ErrorCode::kUnsupported,
             "modules_to_save: \"{}\" means \"{}\", a norm; adapters hold Linear layers and the token table: name the "
             "layers, or train all parameters (--full)",
             name, p->name);
    if (!hit)
      fail(ErrorCode::kInvalidInput, "modules_to_save: no module is called \"{}\"; there are {}", name, list_of(names));
  }
}

std::shared_ptr<LoraModule> new_linear(Context& ctx, const nn::Linear& l, const PeftConfig& config, DType dtype,
                                       bool lora, bool whole, bool trains_bias, uint64_t seed, uint32_t number) {
  auto m = std::make_shared<LoraModule>();
  m->scale = static_cast<float>(config.scale_of(l.name()));
  m->dropout = static_cast<float>(config.dropout);
  m->number = number;
  if (lora) {
    const int64_t r = config.rank_of(l.name());
    const bool gaussian = config.init == LoraInit::kGaussian;
    // kaiming with a = sqrt 5 is U(-1/sqrt(in), 1/sqrt(in)); gaussian is N(0, 1/r²)
    m->a = draw(ctx, {r, l.in()}, dtype, seed, 2 * uint64_t{number}, gaussian ? Draw::kNormal : Draw::kUniform,
                gaussian ? 1.f / static_cast<float>(r) : 1.f / std::sqrt(static_cast<float>(l.in())));
    m->b = config.init == LoraInit::kRandomB ? draw(ctx, {l.out(), r}, dtype, seed, 2 * uint64_t{number} + 1,
                                                    Draw::kUniform, 1.f / std::sqrt(static_cast<float>(r)))
                                             : zeros(ctx, {l.out(), r}, dtype);
    if (config.lora_bias) m->b_bias = zeros(ctx, {l.out()}, dtype);
    if (config.use_dora) {
      std::vector<float> norms = row_norms_squared(ctx, l);
      for (float& v : norms) v = std::sqrt(v);
      m->magnitude = from_floats(ctx, norms, {l.out()}, dtype);
    }
  }
  if (whole) m->whole = dense_copy(ctx, l, l.out(), l.in(), dtype);
  if (trains_bias || (whole && l.has_bias())) m->bias = ops::affine(ctx, l.bias.detached(), 1);
  return m;
}

std::shared_ptr<EmbeddingModule> new_table(Context& ctx, const nn::Embedding& e, const PeftConfig& config, DType dtype,
                                           bool whole, uint64_t seed, uint32_t number) {
  auto m = std::make_shared<EmbeddingModule>();
  m->scale = static_cast<float>(config.scale_of(e.name()));
  if (whole) {
    m->whole = dense_copy(ctx, e, e.vocabulary(), e.dim(), dtype);
    return m;
  }
  if (config.lora_bias)
    fail(ErrorCode::kUsage, "target_modules: \"{}\" is an embedding; lora_bias is for Linear layers", e.name());
  // as in PEFT: here A begins as zero, and B is drawn from N(0, 1)
  const int64_t r = config.rank_of(e.name());
  m->at = config.init == LoraInit::kRandomB
              ? draw(ctx, {e.vocabulary(), r}, dtype, seed, 2 * uint64_t{number}, Draw::kNormal, 1)
              : zeros(ctx, {e.vocabulary(), r}, dtype);
  m->b = draw(ctx, {e.dim(), r}, dtype, seed, 2 * uint64_t{number} + 1, Draw::kNormal, 1);
  if (config.use_dora) {
    std::vector<float> norms(static_cast<size_t>(e.dim()));
    if (!ctx.device().is_meta()) {
      const quant::Weight weight = ops::host_copy(e.weight);
      norms = column_norms(
          e.vocabulary(), e.dim(),
          [&](int64_t begin, int64_t n, float* rows) { read_rows(weight, {}, begin, n, rows); }, {}, {}, 0, 0,
          ctx.threads());
    }
    m->magnitude = from_floats(ctx, norms, {e.dim()}, dtype);
  }
  return m;
}

}  // namespace

std::shared_ptr<Adapter> Adapter::create(Context& ctx, models::Model& model, const PeftConfig& config, uint64_t seed) {
  const ModuleFinder found(model);
  check_modules_to_save(found, config);
  if (config.use_dora && config.init == LoraInit::kRandomB)
    fail(ErrorCode::kUsage, "DoRA starts from B = 0; choose another init_lora_weights");
  PeftAdapter::Parts parts;
  uint32_t number = 0;
  bool any = false;
  for (nn::Linear* l : found.linears) {
    ++number;  // counted over all Linears: a module's draws do not depend on which others are adapted
    const bool lora = config.selects(l->name(), model.head().linear == l);
    const bool whole = config.saves_whole(l->name());
    const bool trains_bias =
        l->has_bias() && (config.bias == BiasTraining::kAll || (config.bias == BiasTraining::kLoraOnly && lora));
    if (!lora && !whole && !trains_bias) continue;
    any |= lora || whole;
    parts.linears[l->name()] = new_linear(ctx, *l, config, model.dtype, lora, whole, trains_bias, seed, number);
  }
  for (nn::Embedding* e : found.embeddings) {
    ++number;
    const bool whole = config.saves_whole(e->name());
    if (!whole && !config.selects(e->name(), true)) continue;
    any = true;
    parts.embeddings[e->name()] = new_table(ctx, *e, config, model.dtype, whole, seed, number);
  }
  if (!any) nothing_selected(model, found);
  return std::make_shared<PeftAdapter>(config, std::move(parts));
}

namespace {

// each block of rows: decoded, changed, encoded
void rewrite_rows(Context& ctx, quant::Weight& on_device, const std::string& module, const Adapter& adapter) {
  PMETAL_ASSERT(on_device.format->encode_rows, "{} cannot be written", on_device.format->name);
  const int64_t block = std::max<int64_t>(on_device.format->row_cut, 64);
  quant::Weight weight = ops::host_copy(on_device);
  ctx.threads().parallel_for(weight.out, block, [&](int64_t begin, int64_t end) {
    std::vector<float> rows(static_cast<size_t>(block * weight.in));
    for (int64_t r = begin; r < end; r += block) {
      const int64_t n = std::min(block, end - r);
      weight.format->decode_rows(weight, r, r + n, rows.data());
      adapter.merge_rows(module, r, n, rows.data());
      weight.format->encode_rows(weight, r, r + n, rows.data());
    }
  });
  const uint64_t version = on_device.version;
  on_device = ops::to_device(ctx, weight);
  on_device.version = version + 1;
}

}  // namespace

namespace {

struct RoomMaker final : models::ParameterVisitor {
  RoomMaker(Context& ctx, const std::map<std::string, int64_t>& ranks, int index, const nn::Linear* head)
      : ctx(ctx), ranks(ranks), index(index), head(head) {}
  void on(nn::Linear& l) override {
    nn::Linear* const one[] = {&l};
    if (&l != head) on_group(one);
  }
  void on_group(std::span<nn::Linear* const> linears) override {
    std::vector<int64_t> all;
    for (const nn::Linear* l : linears) {
      const auto hit = ranks.find(l->name());
      all.push_back(hit == ranks.end() ? 0 : hit->second);
    }
    nn::make_room_for_updates(ctx, linears, index, all);
  }
  void on(nn::Embedding&) override {}
  void on(nn::Parameter&) override {}
  Context& ctx;
  const std::map<std::string, int64_t>& ranks;
  int index;
  const nn::Linear* head;
};

}  // namespace

void prepare_training(Context& ctx, models::Model& model, Adapter& adapter, int index) {
  const PeftConfig& config = adapter.config();
  if (config.dropout > 0 || config.use_dora || config.lora_bias) return;
  std::map<std::string, int64_t> ranks;
  for (const nn::Linear* l : ModuleFinder(model).linears) {
    if (l->adapters.size() <= static_cast<size_t>(index)) continue;
    const auto* module = dynamic_cast<const LoraModule*>(l->adapters[static_cast<size_t>(index)].get());
    if (module && module->has_lora()) ranks[l->name()] = module->a.dim(0);
  }
  RoomMaker maker(ctx, ranks, index, model.head().linear);
  model.visit(maker);
  ctx.allocator().release_cached();  // the weights' own memory
}

void merge(Context& ctx, models::Model& model, Adapter& adapter) {
  if (model.info().tied_head && !adapter.keeps_head_tied(model))
    fail(ErrorCode::kUnsupported,
         "the adapter changes the token table or the head, which are one matrix in this {} model; `pmetal fuse` writes "
         "a model where they are two",
         model.info().model_type);
  const ModuleFinder found(model);
  for (nn::Embedding* e : found.embeddings) {
    if (!adapter.changes(e->name())) continue;
    if (adapter.wants_columns(e->name())) {
      const quant::Weight weight = ops::host_copy(e->weight);
      adapter.measure(
          e->name(), e->vocabulary(), e->dim(),
          [&](int64_t begin, int64_t n, float* rows) { weight.format->decode_rows(weight, begin, begin + n, rows); },
          ctx.threads());
    }
    rewrite_rows(ctx, e->weight, e->name(), adapter);
  }
  for (nn::Linear* l : found.linears) {
    if (!adapter.changes(l->name())) continue;
    if (adapter.adds_bias(l->name()) && !l->has_bias())
      fail(ErrorCode::kUnsupported,
           "module \"{}\" has no bias in this architecture; an adapter with lora_bias cannot be merged into it",
           l->name());
    rewrite_rows(ctx, l->weight, l->name(), adapter);
    l->group = nullptr;
    if (l->has_bias()) {
      std::vector<float> bias(static_cast<size_t>(l->out()));
      const Tensor host = ops::host_copy(l->bias);
      convert(host.bytes(), host.dtype(), bias.data(), DType::kF32, l->out());
      adapter.merge_bias(l->name(), l->out(), bias.data());
      convert(bias.data(), DType::kF32, host.bytes(), host.dtype(), l->out());
      if (ctx.device().is_cuda()) l->bias = ops::to_device(ctx, host);
    }
  }
}

}  // namespace pmetal::adapters
