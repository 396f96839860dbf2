// A set of tensors as Hugging Face stores it: one model.safetensors, or shards model-00001-of-0000N.safetensors with
// model.safetensors.index.json {"metadata": {"total_size": …}, "weight_map": {tensor: shard}}.
// Errors: those of safetensors.h; Error(kNotFound) naming all shards that are missing; Error(kInvalidInput) for an
// index that names a file outside its folder or tensors that its shards lack.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/safetensors.h"

namespace pmetal::formats {

class SafetensorsSet {
 public:
  // A folder (model.safetensors if it is there, else model.safetensors.index.json), a .safetensors file or an
  // .index.json. All headers are read and checked here; data is mapped and paged in when touched.
  static SafetensorsSet open(const std::filesystem::path& folder_or_file);

  const std::vector<const TensorView*>& tensors() const { return tensors_; }  // sorted by name
  const TensorView* find(std::string_view name) const;                        // null when absent
  const TensorView& at(std::string_view name) const;                          // Error(kNotFound) when absent
  int64_t total_bytes() const;                                                // of tensor data
  const std::vector<SafetensorsFile>& files() const { return *files_; }
  const std::string& source() const { return source_; }  // the file or index, for messages

 private:
  SafetensorsSet() = default;
  std::string source_;
  std::unique_ptr<std::vector<SafetensorsFile>> files_;  // apart, so that moving the set keeps tensors_ valid
  std::vector<const TensorView*> tensors_;
};

// Hugging Face's default; decimal gigabytes, as there
inline constexpr int64_t kDefaultShardBytes = 5'000'000'000;

// Writes such a set into an existing folder that holds none yet. Tensors are dealt to shards in the order declared: a
// shard ends before the tensor that would make it larger than `max_shard_bytes`; a larger tensor has one of its own.
// One shard is called model.safetensors and has no index. Nothing appears under its final name before finish(), the
// index last. To replace a checkpoint, write into AtomicDirectory::temporary(): shards of two states never mix.
class ShardedWriter {
 public:
  ShardedWriter(const std::filesystem::path& folder, std::vector<TensorDeclaration> tensors,
                int64_t max_shard_bytes = kDefaultShardBytes, const Metadata& metadata = {{"format", "pt"}});

  // the order in which tensors must be written: shard by shard, inside a shard as SafetensorsWriter orders them
  const std::vector<TensorDeclaration>& order() const { return order_; }
  void write(std::string_view name, std::span<const std::byte> bytes);  // whole or in pieces, as there
  void finish();
  int n_shards() const { return static_cast<int>(shards_.size()); }

 private:
  struct Shard {
    std::string file_name;
    std::vector<TensorDeclaration> tensors;
    std::unique_ptr<SafetensorsWriter> writer;
    int64_t missing_bytes = 0;
  };
  std::string index_text() const;

  std::filesystem::path folder_;
  std::vector<Shard> shards_;
  std::vector<TensorDeclaration> order_;
  size_t next_ = 0;  // shard being written
};

}  // namespace pmetal::formats
