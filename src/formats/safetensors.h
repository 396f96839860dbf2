// One safetensors file (https://huggingface.co/docs/safetensors): 8 bytes little-endian header length, a JSON object
// {"name": {"dtype", "shape", "data_offsets": [begin, end]}, …, "__metadata__": {string: string}}, then the data.
// Reading maps the file, checks all of the header against the rules of the format and the size of the file, and only
// then hands out views; nothing is allocated in proportion to a number the file merely claims. Writing streams tensors
// in the order of the official writer, so that equal content gives equal bytes.
// Errors: Error(kInvalidInput) naming file, tensor and values; kUnsupported for a valid element type that we lack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/buffer.h"
#include "base/dtype.h"
#include "base/file.h"

namespace pmetal::formats {

struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // row-major, fastest last; empty for a scalar
  // A slice of the map, which it keeps alive. Files of old writers may place a tensor at any byte: where the address
  // is not a multiple of size_of(dtype), copy before reading elements.
  Buffer bytes;
  int64_t n_elements() const { return bytes.size_bytes() / size_of(dtype); }
};

using Metadata = std::vector<std::pair<std::string, std::string>>;  // in file order

class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path);        // maps, then parse()
  static SafetensorsFile parse(Buffer file, const std::string& source);  // `source` names the file in messages

  const std::vector<TensorView>& tensors() const { return tensors_; }  // by place in the file
  const TensorView* find(std::string_view name) const;                 // null when absent
  const TensorView& at(std::string_view name) const;                   // Error(kNotFound) when absent
  const Metadata& metadata() const { return metadata_; }
  const std::string& source() const { return source_; }

 private:
  SafetensorsFile() = default;
  std::string source_;
  std::vector<TensorView> tensors_;
  std::vector<uint32_t> by_name_;  // indices into tensors_, sorted by name
  Metadata metadata_;
};

struct TensorDeclaration {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  int64_t size_bytes() const;  // asserts that shape is non-negative and the product fits
  bool operator==(const TensorDeclaration&) const = default;
};

// Declare all tensors, then write their bytes in order(); finish() makes the file appear. Holds no tensor data.
class SafetensorsWriter {
 public:
  // Names must differ and not be "__metadata__" (asserted). transformers refuses files without format=pt.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorDeclaration> tensors,
                    const Metadata& metadata = {{"format", "pt"}});

  // element types from the last of the official list to the first, then by name
  const std::vector<TensorDeclaration>& order() const { return tensors_; }
  // The next bytes of `name`, which must be the first tensor of order() that is not complete: whole or in pieces.
  void write(std::string_view name, std::span<const std::byte> bytes);
  // Syncs and renames. Asserts that every declared byte was written.
  void finish();
  int64_t size_bytes() const { return file_.size_bytes(); }

 private:
  void skip_complete();

  std::vector<TensorDeclaration> tensors_;
  AtomicFile file_;
  size_t next_ = 0;           // tensor being written
  int64_t next_written_ = 0;  // bytes of it so far
};

}  // namespace pmetal::formats
