#include "adapters/peft_adapter.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "formats/safetensors.h"
#include "ops/device.h"

namespace pmetal::adapters {
namespace {

template <class Map>
auto find(const Map& map, const std::string& key) {
  const auto hit = map.find(key);
  return hit == map.end() ? nullptr : hit->second.get();
}

template <class Module, class Part>
void put(Module& module, int index, std::shared_ptr<Part> part) {
  if (module.adapters.size() <= static_cast<size_t>(index)) module.adapters.resize(static_cast<size_t>(index) + 1);
  module.adapters[static_cast<size_t>(index)] = std::move(part);
}

template <class Module>
void take_off(Module& module, int index) {
  if (module.adapters.size() > static_cast<size_t>(index)) module.adapters[static_cast<size_t>(index)] = nullptr;
  while (!module.adapters.empty() && !module.adapters.back()) module.adapters.pop_back();
}

// row += scale · sum_j left[j] · right[j], right being `rank` rows of `n` numbers
void add_product(float* row, int64_t n, const float* left, const float* right, int64_t rank, float scale,
                 bool accurate) {
  const auto add = [&](auto& sums) {
    for (int64_t j = 0; j < rank; ++j)
      for (int64_t k = 0; k < n; ++k)
        sums[static_cast<size_t>(k)] += static_cast<std::decay_t<decltype(sums[0])>>(left[j]) * right[j * n + k];
    for (int64_t k = 0; k < n; ++k) row[k] = static_cast<float>(row[k] + scale * sums[static_cast<size_t>(k)]);
  };
  if (accurate) {
    std::vector<double> sums(static_cast<size_t>(n));
    add(sums);
  } else {
    std::vector<float> sums(static_cast<size_t>(n));
    add(sums);
  }
}

// [rows, columns] -> [columns, rows]
std::vector<float> flipped(const std::vector<float>& v, int64_t rows, int64_t columns) {
  std::vector<float> t(v.size());
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      t[static_cast<size_t>(j * rows + i)] = v[static_cast<size_t>(i * columns + j)];
  return t;
}

}  // namespace

ModuleFinder::ModuleFinder(models::Model& model) {
  model.visit(*this);
  if (model.info().tied_head) linears.push_back(model.head().linear);
}

std::vector<AdapterParameter> PeftAdapter::parameters() {
  std::vector<AdapterParameter> all;
  std::string at;
  const auto add = [&](Tensor& t, const char* suffix, bool is_b, bool is_transposed = false) {
    if (t.defined()) all.push_back({at + suffix, &t, is_b, is_transposed});
  };
  for (auto& [name, m] : parts_.linears) {
    at = std::string(kPeftPrefix) + name;
    add(m->a, ".lora_A.weight", false);
    add(m->b, ".lora_B.weight", true);
    add(m->b_bias, ".lora_B.bias", true);
    add(m->magnitude, ".lora_magnitude_vector", true);
    add(m->bias, m->whole.defined() || !m->has_lora() ? ".bias" : ".base_layer.bias", true);
    if (m->token_ids.empty()) add(m->whole, ".weight", false);
  }
  for (auto& [name, m] : parts_.embeddings) {
    at = std::string(kPeftPrefix) + name;
    add(m->at, ".lora_embedding_A", false, true);
    add(m->b, ".lora_embedding_B", false);
    add(m->magnitude, ".lora_magnitude_vector", true);
    add(m->whole, ".weight", false);
  }
  std::sort(all.begin(), all.end(), [](const auto& x, const auto& y) { return x.key < y.key; });
  return all;
}

void PeftAdapter::attach(models::Model& model, int index) {
  const ModuleFinder found(model);
  for (nn::Linear* l : found.linears)
    if (const auto hit = parts_.linears.find(l->name()); hit != parts_.linears.end()) put(*l, index, hit->second);
  for (nn::Embedding* e : found.embeddings)
    if (const auto hit = parts_.embeddings.find(e->name()); hit != parts_.embeddings.end()) put(*e, index, hit->second);
  if (parts_.tied_head) put(*model.head().linear, index, parts_.tied_head);
}

void PeftAdapter::detach(models::Model& model, int index) {
  const ModuleFinder found(model);
  for (nn::Linear* l : found.linears) take_off(*l, index);
  for (nn::Embedding* e : found.embeddings) take_off(*e, index);
}

void PeftAdapter::refresh() {
  for (auto& [name, m] : parts_.linears) m->norms_stale = true;
  for (auto& [name, m] : parts_.embeddings) m->norms_stale = true;
}

bool PeftAdapter::changes(const std::string& module) const {
  return parts_.linears.contains(module) || parts_.embeddings.contains(module);
}

bool PeftAdapter::adds_bias(const std::string& module) const {
  const LoraModule* m = find(parts_.linears, module);
  return m && m->b_bias.defined();
}

bool PeftAdapter::keeps_head_tied(models::Model& model) const {
  if (!model.info().tied_head) return false;
  return parts_.tied_head || (parts_.embeddings.empty() && !parts_.linears.contains(model.head().linear->name()));
}

bool PeftAdapter::wants_columns(const std::string& module) const {
  const EmbeddingModule* m = find(parts_.embeddings, module);
  return m && m->magnitude.defined();
}

void PeftAdapter::measure(const std::string& module, int64_t rows, int64_t columns, const RowReader& weight,
                          ThreadPool& threads) {
  const EmbeddingModule& m = *parts_.embeddings.at(module);
  columns_[module] =
      column_norms(rows, columns, weight, host_floats(m.at), host_floats(m.b), m.at.dim(1), m.scale, threads);
  std::vector<float> magnitudes = host_floats(m.magnitude);
  for (size_t k = 0; k < magnitudes.size(); ++k) columns_[module][k] = magnitudes[k] / columns_[module][k];
}

void PeftAdapter::merge_table_rows(const EmbeddingModule& m, int64_t begin, int64_t n, float* rows,
                                   bool accurate) const {
  if (m.tokens.defined()) {
    const std::vector<float> own = host_floats(m.tokens);
    const int64_t dim = m.tokens.dim(1);
    for (size_t i = 0; i < m.token_ids.size(); ++i)
      if (const int64_t row = m.token_ids[i] - begin; row >= 0 && row < n)
        std::copy_n(own.begin() + static_cast<int64_t>(i) * dim, dim, rows + row * dim);
    return;
  }
  const int64_t r = m.at.dim(1), dim = m.b.dim(0);
  const std::vector<float> a = host_floats(m.at.narrowed(0, begin, n)), b = flipped(host_floats(m.b), dim, r);
  for (int64_t i = 0; i < n; ++i) add_product(rows + i * dim, dim, a.data() + i * r, b.data(), r, m.scale, accurate);
}

void PeftAdapter::merge_rows(const std::string& module, int64_t begin, int64_t n, float* rows, bool accurate) const {
  const LoraModule* m = find(parts_.linears, module);
  const EmbeddingModule* e = find(parts_.embeddings, module);
  if (const Tensor* all = m ? &m->whole : e ? &e->whole : nullptr; all && all->defined()) {
    const std::vector<float> own = host_floats(all->narrowed(0, begin, n));
    std::copy(own.begin(), own.end(), rows);
    return;
  }
  if (e) {
    merge_table_rows(*e, begin, n, rows, accurate);
    if (!e->magnitude.defined()) return;
    const auto ratio = columns_.find(module);
    PMETAL_ASSERT(ratio != columns_.end(), "{}: measure() was not called", module);
    const int64_t dim = e->b.dim(0);
    for (int64_t i = 0; i < n * dim; ++i) rows[i] *= ratio->second[static_cast<size_t>(i % dim)];
    return;
  }
  if (!m) return;
  const int64_t in = m->tokens.defined() ? m->tokens.dim(1) : m->has_lora() ? m->a.dim(1) : 0;
  if (m->tokens.defined()) {
    const std::vector<float> own = host_floats(m->tokens);
    for (size_t i = 0; i < m->token_ids.size(); ++i)
      if (const int64_t row = m->token_ids[i] - begin; row >= 0 && row < n)
        std::copy_n(own.begin() + static_cast<int64_t>(i) * in, in, rows + row * in);
    return;
  }
  if (!m->has_lora()) return;
  const int64_t r = m->a.dim(0);
  const std::vector<float> a = host_floats(m->a), b = host_floats(m->b.narrowed(0, begin, n));
  const std::vector<float> magnitudes =
      m->magnitude.defined() ? host_floats(m->magnitude.narrowed(0, begin, n)) : std::vector<float>();
  for (int64_t i = 0; i < n; ++i) {
    float* row = rows + i * in;
    add_product(row, in, b.data() + i * r, a.data(), r, m->scale, accurate);
    if (magnitudes.empty()) continue;
    double norm = 0;
    for (int64_t k = 0; k < in; ++k) norm += static_cast<double>(row[k]) * row[k];
    const float ratio = static_cast<float>(magnitudes[static_cast<size_t>(i)] / std::sqrt(norm));
    for (int64_t k = 0; k < in; ++k) row[k] *= ratio;
  }
}

void PeftAdapter::merge_bias(const std::string& module, int64_t n, float* bias) const {
  const LoraModule* m = find(parts_.linears, module);
  if (!m) return;
  if (m->bias.defined()) {
    const std::vector<float> own = host_floats(m->bias);
    std::copy(own.begin(), own.end(), bias);
  }
  if (m->b_bias.defined()) {
    const std::vector<float> shift = host_floats(m->b_bias);
    for (int64_t i = 0; i < n; ++i) bias[i] += m->scale * shift[static_cast<size_t>(i)];
  }
}

void PeftAdapter::save(const std::filesystem::path& folder,
                       const std::function<Tensor(const AdapterParameter&)>& value_of) const {
  const std::vector<AdapterParameter> all = const_cast<PeftAdapter*>(this)->parameters();
  std::vector<formats::TensorDeclaration> declarations;
  std::map<std::string, const AdapterParameter*> by_key;
  for (const AdapterParameter& p : all) {
    by_key[p.key] = &p;
    std::vector<int64_t> shape(p.value->shape().dims().begin(), p.value->shape().dims().end());
    if (p.is_transposed) std::swap(shape[0], shape[1]);
    declarations.push_back({p.key, DType::kF32, shape});
  }
  formats::SafetensorsWriter writer(folder / "adapter_model.safetensors", std::move(declarations));
  for (const formats::TensorDeclaration& d : writer.order()) {
    const AdapterParameter& p = *by_key.at(d.name);
    std::vector<float> v = host_floats(value_of ? value_of(p) : *p.value);
    if (p.is_transposed) v = flipped(v, p.value->dim(0), p.value->dim(1));
    writer.write(d.name, std::as_bytes(std::span(v)));
  }
  writer.finish();
  std::set<std::string> targets;
  const auto last_name = [](const std::string& name) { return name.substr(name.rfind('.') + 1); };
  for (const auto& [name, m] : parts_.linears)
    if (m->has_lora()) targets.insert(last_name(name));
  for (const auto& [name, m] : parts_.embeddings)
    if (m->has_lora()) targets.insert(last_name(name));
  const bool by_name = !config_.targets.names.empty();
  write_peft_config(folder / "adapter_config.json", config_,
                    by_name ? config_.targets.names : std::vector<std::string>(targets.begin(), targets.end()));
}

}  // namespace pmetal::adapters
