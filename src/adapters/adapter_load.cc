// Reading an adapter: every tensor of the file must fit a module of the model.
#include <algorithm>
#include <cmath>
#include <map>

#include "adapters/peft_adapter.h"
#include "base/file.h"
#include "formats/safetensors.h"
#include "ops/device.h"

namespace pmetal::adapters {
namespace {

// module and suffix of a tensor key of any of the accepted spellings
std::pair<std::string, std::string> split_key(std::string key) {
  if (key.starts_with(kPeftPrefix)) key = key.substr(kPeftPrefix.size());
  if (const size_t at = key.find(".default"); at != std::string::npos) key.erase(at, 8);
  for (const char* suffix :
       {".lora_A.weight", ".lora_B.weight", ".lora_B.bias", ".lora_magnitude_vector.weight", ".lora_magnitude_vector",
        ".lora_embedding_A", ".lora_embedding_B", ".token_adapter.trainable_tokens_delta", ".base_layer.weight",
        ".base_layer.bias", ".lora_a", ".lora_b", ".weight", ".bias"})
    if (key.ends_with(suffix)) return {key.substr(0, key.size() - std::string(suffix).size()), suffix};
  return {key, ""};
}

class Loader {
 public:
  Loader(Context& ctx, models::Model& model, const PeftConfig& config, const fs::path& file, const ScaleOverride& scale)
      : ctx_(ctx), model_(model), config_(config), file_(file), scale_(scale), found_(model) {
    for (nn::Linear* l : found_.linears) {
      linears_[l->name()] = l;
      numbers_[l->name()] = static_cast<uint32_t>(numbers_.size() + 1);
    }
    for (nn::Embedding* e : found_.embeddings) embeddings_[e->name()] = e;
  }

  PeftAdapter::Parts read() {
    const formats::SafetensorsFile tensors = formats::SafetensorsFile::open(file_);
    for (const formats::TensorView& t : tensors.tensors()) {
      auto [name, suffix] = split_key(t.name);
      if (!linears_.contains(name) && !embeddings_.contains(name)) name = "model." + name;
      if (suffix.empty() || (!linears_.contains(name) && !embeddings_.contains(name))) fits_nothing(t.name);
      if (const auto hit = embeddings_.find(name); hit != embeddings_.end())
        of_table(t, *hit->second, suffix);
      else
        of_linear(t, *linears_.at(name), suffix);
    }
    if (parts_.linears.empty() && parts_.embeddings.empty())
      fail(ErrorCode::kInvalidInput, "{}: holds no tensors", file_.string());
    for (const auto& [name, m] : parts_.linears) check(name, m->a, m->b, m->magnitude, "lora_A and lora_B");
    for (const auto& [name, m] : parts_.embeddings)
      check(name, m->at, m->b, m->magnitude, "lora_embedding_A and lora_embedding_B");
    tie_head();
    return std::move(parts_);
  }

 private:
  [[noreturn]] void fits_nothing(const std::string& tensor) const {
    for (const nn::Parameter* p : found_.parameters)
      if (tensor.ends_with(p->name))
        fail(ErrorCode::kUnsupported,
             "{}: tensor \"{}\" changes a norm, and adapters change Linear layers and the token table here; merge it "
             "into its model with PEFT (merge_and_unload) and use the result",
             file_.string(), tensor);
    fail(ErrorCode::kInvalidInput,
         "{}: tensor \"{}\" fits no module of this {} model; the adapter belongs to another model", file_.string(),
         tensor, model_.info().model_type);
  }

  Tensor take(const formats::TensorView& t, const Shape& shape, int64_t r) const {
    const Shape has(std::span(t.shape).first(std::min<size_t>(t.shape.size(), Shape::kMaxRank)));
    if (!(t.shape.size() <= 2 && has == shape))
      fail(ErrorCode::kInvalidInput, "{}: tensor \"{}\" has shape {}, expected {} (r = {})", file_.string(), t.name,
           has.to_string(), shape.to_string(), r);
    if (!is_floating(t.dtype))
      fail(ErrorCode::kInvalidInput, "{}: tensor \"{}\" is {}, expected a floating type", file_.string(), t.name,
           name_of(t.dtype));
    Tensor host(allocate_host(shape.numel() * size_of(model_.dtype)), shape, model_.dtype);
    convert(t.bytes.data(), t.dtype, host.bytes(), model_.dtype, shape.numel());
    require_finite(host, t.name);
    return ops::to_device(ctx_, host);
  }

  Tensor take_transposed(const formats::TensorView& t, const Shape& shape, int64_t r) const {
    const Tensor flipped = ops::host_copy(take(t, {shape[1], shape[0]}, r));
    Tensor host(allocate_host(shape.numel() * size_of(model_.dtype)), shape, model_.dtype);
    const int64_t e = size_of(model_.dtype);
    for (int64_t i = 0; i < shape[0]; ++i)
      for (int64_t j = 0; j < shape[1]; ++j)
        std::copy_n(flipped.bytes() + (j * shape[0] + i) * e, e, host.bytes() + (i * shape[1] + j) * e);
    return ops::to_device(ctx_, host);
  }

  // One such value would turn every output into NaN, and a fused model into one that is broken for good.
  void require_finite(const Tensor& values, const std::string& name) const {
    std::vector<float> row(static_cast<size_t>(values.numel()));
    convert(values.bytes(), values.dtype(), row.data(), DType::kF32, values.numel());
    for (size_t i = 0; i < row.size(); ++i)
      if (!std::isfinite(row[i]))
        fail(ErrorCode::kInvalidInput,
             "{}: tensor \"{}\" holds {} at element {}; the file is damaged or its training diverged: take an earlier "
             "checkpoint",
             file_.string(), name, row[i], i);
  }

  float scale_of(const std::string& module) const {
    const double alpha = scale_.alpha.value_or(config_.alpha_of(module));
    const double rank = static_cast<double>(scale_.rank.value_or(config_.rank_of(module)));
    return static_cast<float>(alpha / (config_.use_rslora ? std::sqrt(rank) : rank));
  }

  // PEFT writes the frozen base weight beside the update of a token table or a head. It must be the model's own.
  void check_base(const formats::TensorView& t, const quant::Weight& weight, int64_t rows, int64_t columns) const {
    const Shape has(std::span(t.shape).first(std::min<size_t>(t.shape.size(), Shape::kMaxRank)));
    if (has != Shape{rows, columns} || !is_floating(t.dtype))
      fail(ErrorCode::kInvalidInput,
           "{}: tensor \"{}\" is {} {}, the model's own is {}; the adapter was made after the vocabulary was resized: "
           "resize the base model first",
           file_.string(), t.name, name_of(t.dtype), has.to_string(), (Shape{rows, columns}).to_string());
    if (!weight.defined() || ctx_.device().is_meta()) return;  // a model without weights: nothing is computed with it
    const quant::Weight host = ops::host_copy(weight);
    constexpr int64_t kBlock = 64;
    const int64_t stored = size_of(t.dtype);
    std::vector<float> own(static_cast<size_t>(kBlock * columns)), theirs(own.size());
    std::vector<std::byte> rounded(own.size() * sizeof(float));
    for (int64_t r = 0; r < rows; r += kBlock) {
      const int64_t n = std::min(kBlock, rows - r), count = n * columns;
      host.format->decode_rows(host, r, r + n, own.data());
      const std::byte* bytes = t.bytes.data() + r * columns * stored;
      // both rounded to the coarser of the two types
      const bool file_is_coarser = stored < size_of(model_.dtype);
      const DType coarse = file_is_coarser ? t.dtype : model_.dtype;
      convert(bytes, t.dtype, rounded.data(), coarse, count);
      convert(rounded.data(), coarse, theirs.data(), DType::kF32, count);
      convert(own.data(), DType::kF32, rounded.data(), coarse, count);
      convert(rounded.data(), coarse, own.data(), DType::kF32, count);
      if (!std::equal(own.begin(), own.begin() + count, theirs.begin()))
        fail(ErrorCode::kInvalidInput,
             "{}: tensor \"{}\" is a base weight and differs from the model's; the adapter belongs to another version "
             "of the model",
             file_.string(), t.name);
    }
  }

  std::vector<int64_t> token_ids(const formats::TensorView& t, const std::string& module, int64_t vocabulary) const {
    const std::vector<int64_t>* ids = config_.tokens_of(module);
    if (!ids)
      fail(ErrorCode::kInvalidInput,
           "{}: tensor \"{}\" holds trained tokens; trainable_token_indices does not say which", file_.string(),
           t.name);
    for (const int64_t id : *ids)
      if (id < 0 || id >= vocabulary)
        fail(ErrorCode::kInvalidInput, "{}: trainable_token_indices: {} is no token of this model, which has {}",
             file_.parent_path().string(), id, vocabulary);
    return *ids;
  }

  void of_table(const formats::TensorView& t, nn::Embedding& e, const std::string& suffix) {
    const int64_t r = config_.rank_of(e.name()), v = e.vocabulary(), d = e.dim();
    if (suffix == ".base_layer.weight") return check_base(t, e.weight, v, d);
    // not a module to save: the base model's table, which PEFT writes after it was resized; a tied head has it too
    const bool is_base = suffix == ".weight" && !config_.saves_whole(e.name());
    if (is_base && model_.info().tied_head) return check_base(t, e.weight, v, d);
    std::shared_ptr<EmbeddingModule>& m = parts_.embeddings[e.name()];
    if (!m) m = std::make_shared<EmbeddingModule>();
    m->scale = scale_of(e.name());
    if (suffix == ".lora_embedding_A") {
      m->at = take_transposed(t, {v, r}, r);
    } else if (suffix == ".lora_embedding_B") {
      m->b = take(t, {d, r}, r);
    } else if (suffix.starts_with(".lora_magnitude_vector")) {
      m->magnitude = take(t, {d}, r);
    } else if (suffix == ".token_adapter.trainable_tokens_delta") {
      m->token_ids = token_ids(t, e.name(), v);
      m->tokens = take(t, {static_cast<int64_t>(m->token_ids.size()), d}, r);
    } else if (suffix == ".weight") {
      m->whole = take(t, {v, d}, r);
    } else {
      fits_nothing(t.name);
    }
  }

  void of_linear(const formats::TensorView& t, nn::Linear& l, const std::string& suffix) {
    const int64_t r = config_.rank_of(l.name());
    if (suffix == ".base_layer.weight") return check_base(t, l.weight, l.out(), l.in());
    std::shared_ptr<LoraModule>& m = parts_.linears[l.name()];
    if (!m) {
      m = std::make_shared<LoraModule>();
      m->dropout = static_cast<float>(config_.dropout);
      m->number = numbers_.at(l.name());
      m->scale = scale_of(l.name());
    }
    if (suffix == ".lora_A.weight") {
      m->a = take(t, {r, l.in()}, r);
    } else if (suffix == ".lora_a") {  // the older files keep A as [in, r]
      m->a = take_transposed(t, {r, l.in()}, r);
    } else if (suffix == ".lora_B.weight" || suffix == ".lora_b") {
      m->b = take(t, {l.out(), r}, r);
    } else if (suffix == ".lora_B.bias") {
      m->b_bias = take(t, {l.out()}, r);
    } else if (suffix.starts_with(".lora_magnitude_vector")) {
      m->magnitude = take(t, {l.out()}, r);
    } else if (suffix == ".token_adapter.trainable_tokens_delta") {
      m->token_ids = token_ids(t, l.name(), l.out());
      m->tokens = take(t, {static_cast<int64_t>(m->token_ids.size()), l.in()}, r);
    } else if (suffix.ends_with("bias")) {
      m->bias = take(t, {l.out()}, r);
    } else if (suffix == ".weight") {
      m->whole = take(t, {l.out(), l.in()}, r);
    } else {
      fits_nothing(t.name);
    }
  }

  void check(const std::string& name, const Tensor& a, const Tensor& b, const Tensor& magnitude,
             const char* pair) const {
    if (a.defined() != b.defined())
      fail(ErrorCode::kInvalidInput, "{}: module \"{}\" has only one of {}", file_.string(), name, pair);
    if (config_.use_dora && a.defined() && !magnitude.defined())
      fail(ErrorCode::kInvalidInput, "{}: module \"{}\" has no lora_magnitude_vector, and use_dora is true",
           file_.string(), name);
    if (!config_.use_dora && magnitude.defined())
      fail(ErrorCode::kInvalidInput, "{}: module \"{}\" has a lora_magnitude_vector, and use_dora is false",
           file_.string(), name);
  }

  // PEFT lets a tied head follow trained tokens unless it has its own, and the rest when ensure_weight_tying says so.
  void tie_head() {
    if (!model_.info().tied_head || parts_.embeddings.empty()) return;
    if (parts_.linears.contains(model_.head().linear->name())) return;
    const auto& [name, table] = *parts_.embeddings.begin();
    if (table->tokens.defined()) {
      const std::vector<int64_t>* own = config_.tokens_of(model_.head().linear->name());
      if (own && *own != table->token_ids) return;
    } else if (!config_.ensure_weight_tying) {
      return;
    }
    if (table->magnitude.defined())
      fail(ErrorCode::kUnsupported,
           "{}: ensure_weight_tying with DoRA on \"{}\" is not supported; merge the adapter with PEFT "
           "(merge_and_unload) and use the result",
           file_.parent_path().string(), name);
    parts_.tied_head = std::make_shared<TiedHeadModule>(table, *embeddings_.at(name));
  }

  Context& ctx_;
  models::Model& model_;
  const PeftConfig& config_;
  fs::path file_;
  ScaleOverride scale_;
  ModuleFinder found_;
  std::map<std::string, nn::Linear*> linears_;
  std::map<std::string, uint32_t> numbers_;
  std::map<std::string, nn::Embedding*> embeddings_;
  PeftAdapter::Parts parts_;
};

}  // namespace

std::shared_ptr<Adapter> Adapter::load(Context& ctx, models::Model& model, const fs::path& folder,
                                       const ScaleOverride& scale) {
  if (!fs::exists(folder / "adapter_config.json"))
    fail(ErrorCode::kNotFound, "{}: has no adapter_config.json; give the folder of a PEFT adapter", folder.string());
  const PeftConfig config = read_peft_config(folder / "adapter_config.json");
  const fs::path file = fs::exists(folder / "adapter_model.safetensors") ? folder / "adapter_model.safetensors"
                                                                         : folder / "lora_weights.safetensors";
  PeftAdapter::Parts parts = Loader(ctx, model, config, file, scale).read();
  return std::make_shared<PeftAdapter>(config, std::move(parts));
}

}  // namespace pmetal::adapters
