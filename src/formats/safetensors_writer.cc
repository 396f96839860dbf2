// The writing half of safetensors.h.
#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "formats/safetensors.h"
#include "formats/text.h"

namespace pmetal::formats {
namespace {

constexpr size_t kAlignment = 8;  // of the data, by spaces after the header
constexpr std::string_view kMetadataKey = "__metadata__";

// Place in the official list of element types: BOOL, U8, I8, F8_E5M2, F8_E4M3, I16, U16, F16, BF16, I32, U32, F32,
// F64, I64, U64. The writer goes through it backwards, which also puts wide elements first.
int official_rank(DType dtype) {
  switch (dtype) {
    case DType::kBool: return 0;
    case DType::kU8: return 1;
    case DType::kI8: return 2;
    case DType::kF8E5M2: return 3;
    case DType::kF8E4M3: return 4;
    case DType::kI16: return 5;
    case DType::kU16: return 6;
    case DType::kF16: return 7;
    case DType::kBF16: return 8;
    case DType::kI32: return 9;
    case DType::kU32: return 10;
    case DType::kF32: return 11;
    case DType::kF64: return 12;
    case DType::kI64: return 13;
    case DType::kU64: return 14;
  }
  return 0;
}

std::string header_text(const std::vector<TensorDeclaration>& tensors, const Metadata& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += json_quoted(kMetadataKey) + ":{";
    for (const auto& [key, value] : metadata) text += json_quoted(key) + ":" + json_quoted(value) + ",";
    text.back() = '}';
    text += ',';
  }
  int64_t offset = 0;
  for (const TensorDeclaration& t : tensors) {
    text += fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}},)", json_quoted(t.name),
                        safetensors_name(t.dtype), fmt::join(t.shape, ","), offset, offset + t.size_bytes());
    offset += t.size_bytes();
  }
  if (text.back() == ',')
    text.back() = '}';
  else
    text += '}';
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  return text;
}

}  // namespace

int64_t TensorDeclaration::size_bytes() const {
  const auto elements = checked_product(shape);
  const auto bytes = elements ? checked_mul(*elements, size_of(dtype)) : std::nullopt;
  PMETAL_ASSERT(bytes.has_value(), "tensor {} of shape {}", name, fmt::join(shape, " x "));
  return *bytes;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorDeclaration> tensors,
                                     const Metadata& metadata)
    : tensors_(std::move(tensors)), file_(path) {
  std::sort(tensors_.begin(), tensors_.end(), [](const TensorDeclaration& a, const TensorDeclaration& b) {
    const int rank_a = official_rank(a.dtype), rank_b = official_rank(b.dtype);
    return rank_a != rank_b ? rank_a > rank_b : a.name < b.name;
  });
  std::vector<std::string_view> names;
  for (const TensorDeclaration& t : tensors_) {
    PMETAL_ASSERT(t.name != kMetadataKey, "{}", path.string());
    names.push_back(t.name);
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  PMETAL_ASSERT(twice == names.end(), "{}: two tensors are named {}", path.string(), *twice);
  const std::string header = header_text(tensors_, metadata);
  const uint64_t length = header.size();
  file_.write(std::as_bytes(std::span(&length, 1)));
  file_.write(header);
  skip_complete();
}

void SafetensorsWriter::skip_complete() {
  while (next_ < tensors_.size() && next_written_ == tensors_[next_].size_bytes()) {
    ++next_;
    next_written_ = 0;
  }
}

void SafetensorsWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  PMETAL_ASSERT(next_ < tensors_.size() && tensors_[next_].name == name, "wrote {} where {} is due", name,
                next_ < tensors_.size() ? tensors_[next_].name : "nothing");
  next_written_ += static_cast<int64_t>(bytes.size());
  PMETAL_ASSERT(next_written_ <= tensors_[next_].size_bytes(), "{} bytes of {}, declared {}", next_written_, name,
                tensors_[next_].size_bytes());
  file_.write(bytes);
  skip_complete();
}

void SafetensorsWriter::finish() {
  PMETAL_ASSERT(next_ == tensors_.size(), "{} has {} of {} bytes", tensors_[next_].name, next_written_,
                tensors_[next_].size_bytes());
  file_.commit();
}

}  // namespace pmetal::formats
