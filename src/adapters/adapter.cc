#include "adapters/adapter.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "adapters/lora_module.h"
#include "base/file.h"
#include "base/rng.h"
#include "formats/safetensors.h"
#include "ops/device.h"

namespace pmetal::adapters {
namespace {

constexpr const char* kPrefix = "base_model.model.";

using ModulePtr = std::shared_ptr<LoraModule>;

struct LinearFinder : models::ParameterVisitor {
  std::vector<nn::Linear*> linears;
  std::vector<nn::Embedding*> embeddings;
  void on(nn::Linear& l) override { linears.push_back(&l); }
  void on(nn::Embedding& e) override { embeddings.push_back(&e); }
  void on(nn::Parameter&) override {}
};

std::vector<nn::Linear*> linears_of(models::Model& model) {
  LinearFinder f;
  model.visit(f);
  return f.linears;
}

bool is_head(models::Model& model, const nn::Linear& l) { return model.head().linear == &l; }

// A ~ U(-1/sqrt(in), 1/sqrt(in)) (kaiming with a = sqrt 5) or N(0, 1/r²); an element depends on seed, module and index.
Tensor draw(Context& ctx, const Shape& shape, DType dtype, uint64_t seed, uint64_t stream, bool gaussian, float scale) {
  if (ctx.device().is_meta()) return ctx.empty(shape, dtype);
  PhiloxStream rng(seed, RngPurpose::kInit, stream);
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  for (float& v : values) v = scale * static_cast<float>(gaussian ? rng.normal() : 2 * rng.uniform() - 1);
  return ops::cast(ctx, ops::to_device(ctx, host_tensor<float>(values, shape, DType::kF32)), dtype);
}

class PeftAdapter final : public Adapter {
 public:
  PeftAdapter(PeftConfig config, std::map<std::string, ModulePtr> modules)
      : config_(std::move(config)), modules_(std::move(modules)) {}

  const PeftConfig& config() const override { return config_; }

  std::vector<AdapterParameter> parameters() override {
    std::vector<AdapterParameter> all;
    for (auto& [name, m] : modules_) {
      const std::string p = kPrefix + name;
      const auto put = [&](Tensor& t, const std::string& suffix, bool is_b) {
        if (t.defined()) all.push_back({p + suffix, &t, is_b});
      };
      put(m->a, ".lora_A.weight", false);
      put(m->b, ".lora_B.weight", true);
      put(m->b_bias, ".lora_B.bias", true);
      put(m->magnitude, ".lora_magnitude_vector", true);
      put(m->bias, m->whole.defined() ? ".bias" : m->has_lora() ? ".base_layer.bias" : ".bias", true);
      put(m->whole, ".weight", false);
    }
    std::sort(all.begin(), all.end(), [](const auto& x, const auto& y) { return x.key < y.key; });
    return all;
  }

  void attach(models::Model& model, int index) override {
    for (nn::Linear* l : linears_of(model)) {
      const auto hit = modules_.find(l->name());
      if (hit == modules_.end()) continue;
      if (l->adapters.size() <= static_cast<size_t>(index)) l->adapters.resize(static_cast<size_t>(index) + 1);
      l->adapters[static_cast<size_t>(index)] = hit->second;
    }
  }

  void detach(models::Model& model, int index) override {
    for (nn::Linear* l : linears_of(model)) {
      if (l->adapters.size() > static_cast<size_t>(index)) l->adapters[static_cast<size_t>(index)] = nullptr;
      while (!l->adapters.empty() && !l->adapters.back()) l->adapters.pop_back();
    }
  }

  void refresh() override {
    for (auto& [name, m] : modules_) m->norms_stale = true;
  }

  bool changes(const std::string& module) const override { return modules_.contains(module); }
  bool adds_bias(const std::string& module) const override {
    const auto hit = modules_.find(module);
    return hit != modules_.end() && hit->second->b_bias.defined();
  }

  void merge_rows(const std::string& module, int64_t begin, int64_t n, float* rows, bool accurate) const override {
    const auto hit = modules_.find(module);
    if (hit == modules_.end()) return;
    const LoraModule& m = *hit->second;
    if (m.whole.defined()) {
      const Tensor whole = ops::host_copy(m.whole.narrowed(0, begin, n));
      convert(whole.bytes(), whole.dtype(), rows, DType::kF32, whole.numel());
      return;
    }
    if (!m.has_lora()) return;
    const std::vector<float> a = values(m.a), b = values(m.b);
    const std::vector<float> magnitudes = m.magnitude.defined() ? values(m.magnitude) : std::vector<float>();
    const int64_t r = m.a.dim(0), in = m.a.dim(1);
    std::vector<double> exact(accurate ? static_cast<size_t>(in) : 0);
    std::vector<float> delta(static_cast<size_t>(in));
    for (int64_t i = 0; i < n; ++i) {
      std::fill(delta.begin(), delta.end(), 0.f);
      std::fill(exact.begin(), exact.end(), 0.0);
      for (int64_t j = 0; j < r; ++j) {
        const float bij = b[static_cast<size_t>((begin + i) * r + j)];
        const float* aj = a.data() + j * in;
        if (accurate)
          for (int64_t k = 0; k < in; ++k) exact[static_cast<size_t>(k)] += static_cast<double>(bij) * aj[k];
        else
          for (int64_t k = 0; k < in; ++k) delta[static_cast<size_t>(k)] += bij * aj[k];
      }
      float* row = rows + i * in;
      for (int64_t k = 0; k < in; ++k)
        row[k] = accurate ? static_cast<float>(row[k] + static_cast<double>(m.scale) * exact[static_cast<size_t>(k)])
                          : row[k] + m.scale * delta[static_cast<size_t>(k)];
      if (m.magnitude.defined()) {
        double norm = 0;
        for (int64_t k = 0; k < in; ++k) norm += static_cast<double>(row[k]) * row[k];
        const float ratio = static_cast<float>(magnitudes[static_cast<size_t>(begin + i)] / std::sqrt(norm));
        for (int64_t k = 0; k < in; ++k) row[k] *= ratio;
      }
    }
  }

  void merge_bias(const std::string& module, int64_t n, float* bias) const override {
    const auto hit = modules_.find(module);
    if (hit == modules_.end()) return;
    const LoraModule& m = *hit->second;
    if (m.bias.defined()) {
      const std::vector<float> own = values(m.bias);
      std::copy(own.begin(), own.end(), bias);
    }
    if (m.b_bias.defined()) {
      const std::vector<float> shift = values(m.b_bias);
      for (int64_t i = 0; i < n; ++i) bias[i] += m.scale * shift[static_cast<size_t>(i)];
    }
  }

  void save(const fs::path& folder, const std::function<Tensor(const AdapterParameter&)>& value_of) const override {
    const std::vector<AdapterParameter> all = const_cast<PeftAdapter*>(this)->parameters();
    std::vector<formats::TensorDeclaration> declarations;
    std::map<std::string, Tensor> tensors;
    for (const AdapterParameter& p : all) {
      const Tensor t = value_of ? value_of(p) : *p.value;
      tensors[p.key] = t;
      declarations.push_back({p.key, DType::kF32, {p.value->shape().dims().begin(), p.value->shape().dims().end()}});
    }
    formats::SafetensorsWriter writer(folder / "adapter_model.safetensors", std::move(declarations));
    for (const formats::TensorDeclaration& d : writer.order()) {
      const std::vector<float> v = values(tensors.at(d.name));
      writer.write(d.name, std::as_bytes(std::span(v)));
    }
    writer.finish();
    std::set<std::string> targets;
    for (const auto& [name, m] : modules_)
      if (m->has_lora()) targets.insert(name.substr(name.rfind('.') + 1));
    const bool by_name = !config_.targets.names.empty();
    write_peft_config(folder / "adapter_config.json", config_,
                      by_name ? config_.targets.names : std::vector<std::string>(targets.begin(), targets.end()));
  }

 private:
  static std::vector<float> values(const Tensor& t) {
    const Tensor host = ops::host_copy(t);
    std::vector<float> v(static_cast<size_t>(t.numel()));
    convert(host.bytes(), t.dtype(), v.data(), DType::kF32, t.numel());
    return v;
  }

  PeftConfig config_;
  std::map<std::string, ModulePtr> modules_;
};

ModulePtr new_module(const PeftConfig& config, const std::string& name, uint32_t number) {
  auto m = std::make_shared<LoraModule>();
  m->scale = static_cast<float>(config.scale_of(name));
  m->dropout = static_cast<float>(config.dropout);
  m->number = number;
  return m;
}

Tensor dense_copy(Context& ctx, const nn::Linear& l, DType dtype) {
  if (ctx.device().is_meta()) return ctx.empty({l.out(), l.in()}, dtype);
  std::vector<float> rows(static_cast<size_t>(l.out() * l.in()));
  const quant::Weight weight = ops::host_copy(l.weight);
  weight.format->decode_rows(weight, 0, l.out(), rows.data());
  return ops::cast(ctx, ops::to_device(ctx, host_tensor<float>(rows, Shape{l.out(), l.in()}, DType::kF32)), dtype);
}

[[noreturn]] void nothing_selected(models::Model& model) {
  std::set<std::string> names;
  for (const nn::Linear* l : linears_of(model)) names.insert(l->name().substr(l->name().rfind('.') + 1));
  std::string list;
  for (const std::string& n : names) list += (list.empty() ? "" : ", ") + n;
  fail(ErrorCode::kInvalidInput, "target_modules: no module of this {} model matches; its modules are {}",
       model.info().model_type, list);
}

// Adapters sit on Linear layers. A name that means an embedding would else be passed over in silence.
void refuse_embeddings(models::Model& model, const PeftConfig& config) {
  LinearFinder found;
  model.visit(found);
  for (const nn::Embedding* e : found.embeddings) {
    const bool is_target = !config.targets.all_linear && config.targets.matches(e->name());
    if (!is_target && !config.saves_whole(e->name())) continue;
    fail(ErrorCode::kUnsupported,
         "{}: \"{}\" is an embedding, and adapters train Linear layers; leave it out, or train all parameters (--full)",
         is_target ? "target_modules" : "modules_to_save", e->name());
  }
}

// module and suffix of a tensor key of any of the accepted spellings
std::pair<std::string, std::string> split_key(std::string key) {
  if (key.starts_with(kPrefix)) key = key.substr(17);
  for (const char* infix : {".default"}) {
    if (const size_t at = key.find(infix); at != std::string::npos) key.erase(at, std::string(infix).size());
  }
  for (const char* suffix : {".lora_A.weight", ".lora_B.weight", ".lora_B.bias", ".lora_magnitude_vector.weight",
                             ".lora_magnitude_vector", ".base_layer.bias", ".lora_a", ".lora_b", ".weight", ".bias"})
    if (key.ends_with(suffix)) return {key.substr(0, key.size() - std::string(suffix).size()), suffix};
  return {key, ""};
}

}  // namespace

std::shared_ptr<Adapter> Adapter::create(Context& ctx, models::Model& model, const PeftConfig& config, uint64_t seed) {
  refuse_embeddings(model, config);
  std::map<std::string, ModulePtr> modules;
  uint32_t number = 0;
  bool any = false;
  for (nn::Linear* l : linears_of(model)) {
    ++number;  // counted over all Linears: a module's draws do not depend on which others are adapted
    const std::string& name = l->name();
    const bool lora = config.selects(name, is_head(model, *l));
    const bool whole = config.saves_whole(name);
    const bool trains_bias =
        l->has_bias() && (config.bias == BiasTraining::kAll || (config.bias == BiasTraining::kLoraOnly && lora));
    if (!lora && !whole && !trains_bias) continue;
    any |= lora || whole;
    ModulePtr m = new_module(config, name, number);
    if (lora) {
      const int64_t r = config.rank_of(name);
      const bool gaussian = config.init == LoraInit::kGaussian;
      const float scale = gaussian ? 1.f / static_cast<float>(r) : 1.f / std::sqrt(static_cast<float>(l->in()));
      m->a = draw(ctx, {r, l->in()}, model.dtype, seed, 2 * uint64_t{number}, gaussian, scale);
      if (config.init == LoraInit::kRandomB) {
        m->b = draw(ctx, {l->out(), r}, model.dtype, seed, 2 * uint64_t{number} + 1, false,
                    1.f / std::sqrt(static_cast<float>(r)));
      } else {
        m->b = ctx.empty({l->out(), r}, model.dtype);
        ops::fill(ctx, m->b, 0);
      }
      if (config.lora_bias) {
        m->b_bias = ctx.empty({l->out()}, model.dtype);
        ops::fill(ctx, m->b_bias, 0);
      }
      if (config.use_dora) {
        std::vector<float> norms = row_norms_squared(ctx, *l);
        for (float& v : norms) v = std::sqrt(v);
        if (config.init == LoraInit::kRandomB)
          fail(ErrorCode::kUsage, "DoRA starts from B = 0; choose another init_lora_weights");
        m->magnitude =
            ops::cast(ctx, ops::to_device(ctx, host_tensor<float>(norms, Shape{l->out()}, DType::kF32)), model.dtype);
      }
    }
    if (whole) m->whole = dense_copy(ctx, *l, model.dtype);
    if (trains_bias || (whole && l->has_bias())) m->bias = ops::affine(ctx, l->bias.detached(), 1);
    modules[name] = m;
  }
  if (!any) nothing_selected(model);
  return std::make_shared<PeftAdapter>(config, std::move(modules));
}

namespace {

// One such value would turn every output into NaN, and a fused model into one that is broken for good.
void require_finite(const Tensor& values, const fs::path& file, const std::string& name) {
  std::vector<float> row(static_cast<size_t>(values.numel()));
  convert(values.bytes(), values.dtype(), row.data(), DType::kF32, values.numel());
  for (size_t i = 0; i < row.size(); ++i)
    if (!std::isfinite(row[i]))
      fail(ErrorCode::kInvalidInput,
           "{}: tensor \"{}\" holds {} at element {}; the file is damaged or its training diverged: take an earlier "
           "checkpoint",
           file.string(), name, row[i], i);
}

}  // namespace

std::shared_ptr<Adapter> Adapter::load(Context& ctx, models::Model& model, const fs::path& folder,
                                       const ScaleOverride& scale) {
  if (!fs::exists(folder / "adapter_config.json"))
    fail(ErrorCode::kNotFound, "{}: has no adapter_config.json; give the folder of a PEFT adapter", folder.string());
  const PeftConfig config = read_peft_config(folder / "adapter_config.json");
  const fs::path file = fs::exists(folder / "adapter_model.safetensors") ? folder / "adapter_model.safetensors"
                                                                         : folder / "lora_weights.safetensors";
  const formats::SafetensorsFile tensors = formats::SafetensorsFile::open(file);
  std::map<std::string, nn::Linear*> linears;
  std::map<std::string, uint32_t> numbers;
  LinearFinder finder;
  model.visit(finder);
  const std::vector<nn::Embedding*>& embeddings = finder.embeddings;
  for (nn::Linear* l : finder.linears) {
    linears[l->name()] = l;
    numbers[l->name()] = static_cast<uint32_t>(numbers.size() + 1);
  }
  std::map<std::string, ModulePtr> modules;
  for (const formats::TensorView& t : tensors.tensors()) {
    auto [name, suffix] = split_key(t.name);
    if (!linears.contains(name) && linears.contains("model." + name)) name = "model." + name;
    const auto hit = linears.find(name);
    const bool is_embedding = std::any_of(embeddings.begin(), embeddings.end(), [&](const nn::Embedding* e) {
      return t.name.find(e->name()) != t.name.npos;
    });
    if (is_embedding && hit == linears.end())
      fail(ErrorCode::kUnsupported,
           "{}: tensor \"{}\" changes an embedding, and adapters change Linear layers here; merge it into its model "
           "with "
           "PEFT (merge_and_unload) and use the result",
           file.string(), t.name);
    if (hit == linears.end() || suffix.empty())
      fail(ErrorCode::kInvalidInput,
           "{}: tensor \"{}\" fits no module of this {} model; the adapter belongs to another model", file.string(),
           t.name, model.info().model_type);
    const nn::Linear& l = *hit->second;
    ModulePtr& m = modules[name];
    if (!m) {
      m = new_module(config, name, numbers[name]);
      const double alpha = scale.alpha.value_or(config.alpha_of(name));
      const double rank = static_cast<double>(scale.rank.value_or(config.rank_of(name)));
      m->scale = static_cast<float>(alpha / (config.use_rslora ? std::sqrt(rank) : rank));
    }
    const int64_t r = config.rank_of(name);
    const auto take = [&](const Shape& shape) {
      if (!(t.shape.size() <= 2 && Shape(std::span(t.shape)) == shape))
        fail(ErrorCode::kInvalidInput, "{}: tensor \"{}\" has shape {}, expected {} (r = {})", file.string(), t.name,
             Shape(std::span(t.shape).first(std::min<size_t>(t.shape.size(), Shape::kMaxRank))).to_string(),
             shape.to_string(), r);
      if (!is_floating(t.dtype))
        fail(ErrorCode::kInvalidInput, "{}: tensor \"{}\" is {}, expected a floating type", file.string(), t.name,
             name_of(t.dtype));
      Tensor host(allocate_host(shape.numel() * size_of(model.dtype)), shape, model.dtype);
      convert(t.bytes.data(), t.dtype, host.bytes(), model.dtype, shape.numel());
      require_finite(host, file, t.name);
      return ops::to_device(ctx, host);
    };
    const auto take_transposed = [&](const Shape& shape) {  // the older files keep A as [in, r]
      const Tensor flipped = ops::host_copy(take({shape[1], shape[0]}));
      return ops::to_device(ctx, [&] {
        Tensor host(allocate_host(shape.numel() * size_of(model.dtype)), shape, model.dtype);
        const int64_t e = size_of(model.dtype);
        for (int64_t i = 0; i < shape[0]; ++i)
          for (int64_t j = 0; j < shape[1]; ++j)
            std::copy_n(flipped.bytes() + (j * shape[0] + i) * e, e, host.bytes() + (i * shape[1] + j) * e);
        return host;
      }());
    };
    if (suffix == ".lora_A.weight")
      m->a = take({r, l.in()});
    else if (suffix == ".lora_a")
      m->a = take_transposed({r, l.in()});
    else if (suffix == ".lora_B.weight" || suffix == ".lora_b")
      m->b = take({l.out(), r});
    else if (suffix == ".lora_B.bias")
      m->b_bias = take({l.out()});
    else if (suffix.starts_with(".lora_magnitude_vector"))
      m->magnitude = take({l.out()});
    else if (suffix.ends_with("bias"))
      m->bias = take({l.out()});
    else
      m->whole = take({l.out(), l.in()});
  }
  for (const auto& [name, m] : modules) {
    if (m->a.defined() != m->b.defined())
      fail(ErrorCode::kInvalidInput, "{}: module \"{}\" has only one of lora_A and lora_B", file.string(), name);
    if (config.use_dora && m->a.defined() && !m->magnitude.defined())
      fail(ErrorCode::kInvalidInput, "{}: module \"{}\" has no lora_magnitude_vector, and use_dora is true",
           file.string(), name);
  }
  if (modules.empty()) fail(ErrorCode::kInvalidInput, "{}: holds no tensors", file.string());
  return std::make_shared<PeftAdapter>(config, std::move(modules));
}

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
  for (const nn::Linear* l : linears_of(model)) {
    if (l->adapters.size() <= static_cast<size_t>(index)) continue;
    const auto* module = dynamic_cast<const LoraModule*>(l->adapters[static_cast<size_t>(index)].get());
    if (module && module->has_lora()) ranks[l->name()] = module->a.dim(0);
  }
  RoomMaker maker(ctx, ranks, index, model.head().linear);
  model.visit(maker);
  ctx.allocator().release_cached();  // the weights' own memory
}

void merge(Context& ctx, models::Model& model, const Adapter& adapter) {
  for (nn::Linear* l : linears_of(model)) {
    if (!adapter.changes(l->name())) continue;
    if (adapter.adds_bias(l->name()) && !l->has_bias())
      fail(ErrorCode::kUnsupported,
           "module \"{}\" has no bias in this architecture; an adapter with lora_bias cannot be merged into it",
           l->name());
    PMETAL_ASSERT(l->weight.format->encode_rows, "{} cannot be written", l->weight.format->name);
    const int64_t block = std::max<int64_t>(l->weight.format->row_cut, 64);
    quant::Weight weight = ops::host_copy(l->weight);
    ctx.threads().parallel_for(l->out(), block, [&](int64_t begin, int64_t end) {
      std::vector<float> rows(static_cast<size_t>(block * l->in()));
      for (int64_t r = begin; r < end; r += block) {
        const int64_t n = std::min(block, end - r);
        weight.format->decode_rows(weight, r, r + n, rows.data());
        adapter.merge_rows(l->name(), r, n, rows.data());
        weight.format->encode_rows(weight, r, r + n, rows.data());
      }
    });
    l->weight = ops::to_device(ctx, weight);
    l->group = nullptr;
    ++l->weight.version;
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
