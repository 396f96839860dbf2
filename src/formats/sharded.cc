#include "formats/sharded.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/json.h"
#include "formats/json_reader.h"
#include "formats/text.h"

namespace pmetal::formats {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr std::string_view kSingleName = "model.safetensors";
constexpr std::string_view kIndexSuffix = ".index.json";
constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr size_t kNamesInMessage = 5;

std::string list_of(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size() && i < kNamesInMessage; ++i)
    text += (i ? ", " : "") + ("\"" + shortened(names[i]) + "\"");
  if (names.size() > kNamesInMessage) text += fmt::format(" and {} more", names.size() - kNamesInMessage);
  return text;
}

// A shard lies in the folder of its index or below it. Symbolic links are followed: the Hugging Face cache uses them.
void check_shard_name(const std::string& name, const std::string& index) {
  const fs::path path(name);
  const bool climbs = std::find(path.begin(), path.end(), "..") != path.end();
  if (name.empty() || path.is_absolute() || climbs || name.find('\0') != std::string::npos ||
      !name.ends_with(".safetensors"))
    fail(ErrorCode::kInvalidInput,
         "{}: weight_map names the file \"{}\"; a .safetensors file in the same folder is needed", index,
         shortened(name));
}

// shard -> names of its tensors, as the index says
std::map<std::string, std::vector<std::string>> read_index(const fs::path& index) {
  const ordered_json json = read_json(index, {.limits = {}, .refuse_duplicate_keys = true});
  const JsonReader weight_map = JsonReader(json, index.string()).object("weight_map");
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, shard] : weight_map.raw().items()) {
    if (!shard.is_string())
      weight_map.refuse(shortened(tensor), "expected the name of a shard, got a value that is not a string");
    shards[shard.get<std::string>()].push_back(tensor);
  }
  for (const auto& [shard, tensors] : shards) check_shard_name(shard, index.string());
  return shards;
}

fs::path find_entry(const fs::path& path) {
  if (!fs::is_directory(path)) {
    if (!fs::exists(path)) fail(ErrorCode::kNotFound, "{}: no such file or folder; check the path", path.string());
    return path;
  }
  for (const fs::path& candidate : {path / kSingleName, path / kIndexName})
    if (fs::exists(candidate)) return candidate;
  fail(ErrorCode::kNotFound, "{}: has neither {} nor {}; name a folder with a safetensors checkpoint", path.string(),
       kSingleName, kIndexName);
}

}  // namespace

SafetensorsSet SafetensorsSet::open(const fs::path& folder_or_file) {
  const fs::path entry = find_entry(folder_or_file);
  SafetensorsSet set;
  set.source_ = entry.string();
  set.files_ = std::make_unique<std::vector<SafetensorsFile>>();
  std::map<std::string, std::vector<std::string>> shards;
  if (entry.string().ends_with(kIndexSuffix)) {
    shards = read_index(entry);
    std::vector<std::string> absent;
    for (const auto& [shard, tensors] : shards)
      if (!fs::exists(entry.parent_path() / shard)) absent.push_back(shard);
    if (!absent.empty())
      fail(ErrorCode::kNotFound, "{}: {} of {} shards are missing: {}; download them again", entry.string(),
           absent.size(), shards.size(), list_of(absent));
    for (const auto& [shard, tensors] : shards) {
      set.files_->push_back(SafetensorsFile::open(entry.parent_path() / shard));
      std::vector<std::string> lacking;
      for (const std::string& tensor : tensors)
        if (!set.files_->back().find(tensor)) lacking.push_back(tensor);
      if (!lacking.empty())
        fail(ErrorCode::kInvalidInput, "{}: lacks {} of the {} tensors that {} places there: {}; download both again",
             set.files_->back().source(), lacking.size(), tensors.size(), entry.string(), list_of(lacking));
    }
  } else {
    set.files_->push_back(SafetensorsFile::open(entry));
  }
  // Tensors that no index mentions count too, as they do for Hugging Face's loader, which reads whole shards.
  for (const SafetensorsFile& file : *set.files_)
    for (const TensorView& tensor : file.tensors()) set.tensors_.push_back(&tensor);
  std::sort(set.tensors_.begin(), set.tensors_.end(),
            [](const TensorView* a, const TensorView* b) { return a->name < b->name; });
  const auto twice = std::adjacent_find(set.tensors_.begin(), set.tensors_.end(),
                                        [](const TensorView* a, const TensorView* b) { return a->name == b->name; });
  if (twice != set.tensors_.end())
    fail(ErrorCode::kInvalidInput, "{}: tensor \"{}\" is in two shards; remove one of them", set.source_,
         shortened((*twice)->name));
  return set;
}

const TensorView* SafetensorsSet::find(std::string_view name) const {
  const auto it = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                   [](const TensorView* t, std::string_view wanted) { return t->name < wanted; });
  return it != tensors_.end() && (*it)->name == name ? *it : nullptr;
}

const TensorView& SafetensorsSet::at(std::string_view name) const {
  const TensorView* tensor = find(name);
  if (!tensor)
    fail(ErrorCode::kNotFound, "{}: has no tensor \"{}\" among its {}", source_, shortened(name), tensors_.size());
  return *tensor;
}

int64_t SafetensorsSet::total_bytes() const {
  int64_t total = 0;
  for (const TensorView* tensor : tensors_) total += tensor->bytes.size_bytes();
  return total;
}

ShardedWriter::ShardedWriter(const fs::path& folder, std::vector<TensorDeclaration> tensors, int64_t max_shard_bytes,
                             const Metadata& metadata)
    : folder_(folder) {
  PMETAL_ASSERT(max_shard_bytes > 0, "{}", max_shard_bytes);
  for (const auto& present : fs::directory_iterator(folder)) {
    const std::string name = present.path().filename().string();
    if (name == kIndexName || (name.starts_with("model") && name.ends_with(".safetensors")))
      fail(ErrorCode::kUsage, "{}: already holds a checkpoint ({}); choose another folder or remove it",
           folder.string(), name);
  }
  shards_.emplace_back();
  for (TensorDeclaration& tensor : tensors) {
    const int64_t bytes = tensor.size_bytes();
    if (!shards_.back().tensors.empty() && shards_.back().missing_bytes > max_shard_bytes - bytes)
      shards_.emplace_back();
    shards_.back().missing_bytes += bytes;
    shards_.back().tensors.push_back(std::move(tensor));
  }
  for (size_t i = 0; i < shards_.size(); ++i) {
    Shard& shard = shards_[i];
    shard.file_name = shards_.size() == 1 ? std::string(kSingleName)
                                          : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards_.size());
    shard.writer = std::make_unique<SafetensorsWriter>(folder / shard.file_name, std::move(shard.tensors), metadata);
    shard.tensors = shard.writer->order();
    order_.insert(order_.end(), shard.tensors.begin(), shard.tensors.end());
  }
}

void ShardedWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  while (next_ < shards_.size() && shards_[next_].missing_bytes == 0) ++next_;
  PMETAL_ASSERT(next_ < shards_.size(), "wrote {} where nothing is due", name);
  shards_[next_].writer->write(name, bytes);
  shards_[next_].missing_bytes -= static_cast<int64_t>(bytes.size());
}

// Laid out as transformers writes it: keys sorted, two spaces, a newline at the end.
std::string ShardedWriter::index_text() const {
  int64_t n_elements = 0, n_bytes = 0;
  std::map<std::string, std::string> weight_map;
  for (const Shard& shard : shards_)
    for (const TensorDeclaration& tensor : shard.tensors) {
      n_bytes += tensor.size_bytes();
      n_elements += tensor.size_bytes() / size_of(tensor.dtype);
      weight_map[tensor.name] = shard.file_name;
    }
  PMETAL_ASSERT(weight_map.size() == order_.size(), "{}: a tensor was declared twice", folder_.string());
  ordered_json index;
  index["metadata"]["total_parameters"] = n_elements;
  index["metadata"]["total_size"] = n_bytes;
  index["weight_map"] = ordered_json::object();
  auto& members = index["weight_map"].get_ref<ordered_json::object_t&>();
  for (auto& [tensor, shard] : weight_map) members.emplace_back(tensor, shard);
  return dump_json(index, 2) + "\n";
}

void ShardedWriter::finish() {
  const std::string index = index_text();
  for (Shard& shard : shards_) shard.writer->finish();
  if (shards_.size() > 1) write_file_atomic(folder_ / kIndexName, index);
}

}  // namespace pmetal::formats
