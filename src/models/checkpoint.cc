#include "models/checkpoint.h"

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "formats/json.h"
#include "formats/sharded.h"

namespace pmetal::models {
namespace {

class SafetensorsCheckpoint final : public Checkpoint {
 public:
  explicit SafetensorsCheckpoint(const fs::path& folder)
      : folder_(folder),
        source_((folder / "config.json").string()),
        config_(formats::read_json(folder / "config.json")),
        set_(formats::SafetensorsSet::open(folder)) {}

  const nlohmann::ordered_json& config() const override { return config_; }
  const std::string& source() const override { return source_; }
  fs::path folder() const override { return folder_; }
  bool is_random() const override { return false; }
  bool contains(const std::string& tensor) const override { return set_.find(tensor) != nullptr; }

  std::vector<TensorInfo> tensors() const override {
    std::vector<TensorInfo> all;
    for (const formats::TensorView* t : set_.tensors())
      all.push_back({t->name, t->dtype, Shape(clip(t->shape)), t->bytes.size_bytes()});
    return all;
  }

  quant::Weight matrix(const std::string& tensor, int64_t out, int64_t in) const override {
    const formats::TensorView& t = checked(tensor, Shape{out, in});
    const DType stored = t.dtype;
    if (stored == DType::kF32 || stored == DType::kBF16 || stored == DType::kF16)
      return {&quant::format(name_of(stored)), out, in, {{aligned(t), stored}}, 0};
    // types that nothing computes with: every fp8 value is a bf16 value, and f64 is rounded once
    const DType dtype = stored == DType::kF64 ? DType::kF32 : DType::kBF16;
    Buffer copy = allocate_host(out * in * size_of(dtype));
    convert(t.bytes.data(), stored, copy.data(), dtype, out * in);
    return {&quant::format(name_of(dtype)), out, in, {{copy, dtype}}, 0};
  }

  Buffer raw(const std::string& tensor) const override { return set_.at(tensor).bytes; }

  Tensor vector(const std::string& tensor, const Shape& shape, DType dtype) const override {
    const formats::TensorView& t = checked(tensor, shape);
    Tensor to(allocate_host(shape.numel() * size_of(dtype)), shape, dtype);
    convert(t.bytes.data(), t.dtype, to.bytes(), dtype, shape.numel());
    return to;
  }

 private:
  static std::span<const int64_t> clip(const std::vector<int64_t>& shape) {
    return std::span(shape).first(std::min<size_t>(shape.size(), Shape::kMaxRank));
  }
  const formats::TensorView& checked(const std::string& tensor, const Shape& shape) const {
    const formats::TensorView& t = set_.at(tensor);
    if (t.shape.size() > static_cast<size_t>(Shape::kMaxRank) || !(Shape(clip(t.shape)) == shape))
      fail(ErrorCode::kInvalidInput,
           "{}: tensor \"{}\" has shape {}, {} asks for {}; the config belongs to other weights", set_.source(), tensor,
           Shape(clip(t.shape)).to_string(), source_, shape.to_string());
    if (!is_floating(t.dtype))
      fail(ErrorCode::kUnsupported, "{}: tensor \"{}\" is {}; floating types are supported", set_.source(), tensor,
           name_of(t.dtype));
    return t;
  }
  // old writers place tensors at odd addresses: such a tensor is copied
  static Buffer aligned(const formats::TensorView& t) {
    if (reinterpret_cast<uintptr_t>(t.bytes.data()) % static_cast<uintptr_t>(size_of(t.dtype)) == 0) return t.bytes;
    Buffer copy = allocate_host(t.bytes.size_bytes());
    std::copy_n(t.bytes.data(), t.bytes.size_bytes(), copy.data());
    return copy;
  }

  fs::path folder_;
  std::string source_;
  nlohmann::ordered_json config_;
  formats::SafetensorsSet set_;
};

class RandomCheckpoint final : public Checkpoint {
 public:
  explicit RandomCheckpoint(const fs::path& path) : source_(path.string()), config_(formats::read_json(path)) {}
  const nlohmann::ordered_json& config() const override { return config_; }
  const std::string& source() const override { return source_; }
  fs::path folder() const override { return {}; }
  bool is_random() const override { return true; }
  std::vector<TensorInfo> tensors() const override { return {}; }
  bool contains(const std::string&) const override { return true; }
  quant::Weight matrix(const std::string& tensor, int64_t, int64_t) const override {
    PMETAL_ASSERT(false, "{} of a random checkpoint", tensor);
    return {};
  }
  Buffer raw(const std::string& tensor) const override {
    PMETAL_ASSERT(false, "{} of a random checkpoint", tensor);
    return {};
  }
  Tensor vector(const std::string& tensor, const Shape&, DType) const override {
    PMETAL_ASSERT(false, "{} of a random checkpoint", tensor);
    return {};
  }

 private:
  std::string source_;
  nlohmann::ordered_json config_;
};

}  // namespace

std::unique_ptr<Checkpoint> Checkpoint::open(const std::string& name) {
  if (name.starts_with("random:")) return std::make_unique<RandomCheckpoint>(name.substr(7));
  const fs::path folder = name;
  if (!fs::exists(folder))
    fail(ErrorCode::kNotFound, "{}: no such folder; give a folder with config.json and safetensors weights", name);
  if (!fs::is_directory(folder))
    fail(ErrorCode::kInvalidInput, "{}: is a file; give the folder with config.json and safetensors weights", name);
  if (!fs::exists(folder / "config.json"))
    fail(ErrorCode::kNotFound, "{}: has no config.json; is this a model folder in Hugging Face layout?", name);
  return std::make_unique<SafetensorsCheckpoint>(folder);
}

void copy_sidecars(const fs::path& from, const fs::path& to) {
  if (from.empty()) return;
  for (const char* name :
       {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
        "chat_template.jinja", "chat_template.json", "generation_config.json", "vocab.json", "merges.txt"}) {
    if (!fs::exists(from / name)) continue;
    write_file_atomic(to / name, read_text(from / name));
  }
}

}  // namespace pmetal::models
