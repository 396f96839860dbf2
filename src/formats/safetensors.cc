#include "formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>

#include "base/checked.h"
#include "base/error.h"
#include "formats/json_events.h"
#include "formats/text.h"

namespace pmetal::formats {
namespace {

constexpr int64_t kLengthBytes = 8;
// the limit of the format; the largest published header is about 10 MB
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
// header, tensor, shape or offsets: {"name": {"shape": [1]}}
constexpr int kMaxHeaderDepth = 3;
constexpr std::string_view kMetadataKey = "__metadata__";

// element types of the format that have no DType here: parts of a byte, scales, complex numbers
constexpr std::string_view kUnsupportedDtypes[] = {"F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "C64"};

// what the header says of one tensor, before it is checked against the file
struct Entry {
  std::string name;
  std::optional<DType> dtype;
  std::optional<std::vector<int64_t>> shape;
  std::optional<std::pair<int64_t, int64_t>> range;
};

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Turns the events of the header into entries. Any JSON that does not have the prescribed form is an error here.
class HeaderReader final : public JsonEvents {
 public:
  explicit HeaderReader(const std::string& source) : source_(source) {}

  std::vector<Entry> entries;
  Metadata metadata;

  void on_key(std::string key) override {
    key_ = std::move(key);
    if (depth_ == 1) {
      if (key_ == kMetadataKey && has_metadata_) refuse("key \"__metadata__\" occurs twice");
      if (key_ != kMetadataKey) entries.push_back({.name = key_, .dtype = {}, .shape = {}, .range = {}});
      in_metadata_ = key_ == kMetadataKey;
      has_metadata_ |= in_metadata_;
    } else if (!in_metadata_ && key_ != "dtype" && key_ != "shape" && key_ != "data_offsets") {
      refuse(fmt::format("{} has the unknown field \"{}\"; the format has dtype, shape and data_offsets", current(),
                         shortened(key_)));
    }
  }
  void on_string(std::string value) override {
    if (depth_ == 2 && in_metadata_) {
      metadata.emplace_back(key_, std::move(value));
      return;
    }
    if (depth_ != 2 || key_ != "dtype") wrong_form();
    Entry& entry = entries.back();
    if (entry.dtype) refuse_twice();
    entry.dtype = dtype_from_safetensors(value);
    if (entry.dtype) return;
    if (std::find(std::begin(kUnsupportedDtypes), std::end(kUnsupportedDtypes), value) != std::end(kUnsupportedDtypes))
      fail(ErrorCode::kUnsupported, "{}: {} has dtype {}, which this version cannot read", source_, current(), value);
    refuse(fmt::format("{} has the unknown dtype \"{}\"", current(), shortened(value)));
  }
  void on_unsigned(uint64_t value) override {
    if (depth_ != 3) wrong_form();
    if (value > static_cast<uint64_t>(INT64_MAX))
      refuse(fmt::format("{}: {} of {} is beyond any file", current(), value, key_));
    numbers_.push_back(static_cast<int64_t>(value));
  }
  void on_integer(int64_t value) override { refuse(fmt::format("{} has the number {} in {}", current(), value, key_)); }
  void on_number(double value) override {
    refuse(fmt::format("{} has the number {} in {}, an integer is needed", current(), value, key_));
  }
  void on_begin_object() override {
    if (depth_ >= 2) wrong_form();
    ++depth_;
  }
  void on_end_object() override {
    if (depth_ == 2 && !in_metadata_) check_complete();
    --depth_;
  }
  void on_begin_array() override {
    if (depth_ != 2 || in_metadata_ || key_ == "dtype") wrong_form();
    if (key_ == "shape" ? entries.back().shape.has_value() : entries.back().range.has_value()) refuse_twice();
    numbers_.clear();
    ++depth_;
  }
  void on_end_array() override {
    --depth_;
    if (key_ == "shape") {
      entries.back().shape = numbers_;
      return;
    }
    if (numbers_.size() != 2)
      refuse(fmt::format("{}: data_offsets must be two numbers, there are {}", current(), numbers_.size()));
    entries.back().range = {numbers_[0], numbers_[1]};
  }
  void on_null() override { wrong_form(); }
  void on_bool(bool) override { wrong_form(); }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail(ErrorCode::kInvalidInput, "{}: {}; the header is damaged", source_, what);
  }
  [[noreturn]] void refuse_twice() const { refuse(fmt::format("{} has two fields \"{}\"", current(), key_)); }
  [[noreturn]] void wrong_form() const {
    if (depth_ == 0) refuse("the header is not an object");
    if (in_metadata_) refuse("__metadata__ must be an object of strings");
    if (depth_ == 1) refuse(fmt::format("{} must be an object with dtype, shape and data_offsets", current()));
    refuse(fmt::format("{}: {} has a value of the wrong type", current(), key_));
  }
  void check_complete() const {
    const Entry& e = entries.back();
    const char* missing = !e.dtype ? "dtype" : !e.shape ? "shape" : !e.range ? "data_offsets" : nullptr;
    if (missing) refuse(fmt::format("{} has no {}", current(), missing));
  }
  std::string current() const {
    return entries.empty() ? "the header" : fmt::format("tensor \"{}\"", shortened(entries.back().name));
  }

  const std::string& source_;
  int depth_ = 0;
  bool in_metadata_ = false, has_metadata_ = false;
  std::string key_;
  std::vector<int64_t> numbers_;
};

void refuse_duplicate_metadata(const Metadata& metadata, const std::string& source) {
  std::vector<std::string_view> keys;
  for (const auto& [key, value] : metadata) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  const auto twice = std::adjacent_find(keys.begin(), keys.end());
  if (twice != keys.end())
    fail(ErrorCode::kInvalidInput, "{}: __metadata__ has the key \"{}\" twice; the header is damaged", source,
         shortened(*twice));
}

// dtype, shape and offsets must agree with each other
void check_entry(const Entry& e, int64_t data_bytes, const std::string& source) {
  const auto [begin, end] = *e.range;
  if (begin > end)
    fail(ErrorCode::kInvalidInput,
         "{}: tensor \"{}\" begins at byte {} and ends before it, at {}; the header is damaged", source,
         shortened(e.name), begin, end);
  const auto elements = checked_product(*e.shape);
  const auto bytes = elements ? checked_mul(*elements, size_of(*e.dtype)) : std::nullopt;
  if (!bytes)
    fail(ErrorCode::kInvalidInput, "{}: tensor \"{}\" has the shape {}, more than any file holds", source,
         shortened(e.name), shape_text(*e.shape));
  if (*bytes != end - begin)
    fail(ErrorCode::kInvalidInput,
         "{}: tensor \"{}\" of {} {} needs {} bytes, its data_offsets [{}, {}] are {}; the header is damaged", source,
         shortened(e.name), safetensors_name(*e.dtype), shape_text(*e.shape), *bytes, begin, end, end - begin);
  if (end > data_bytes)
    fail(ErrorCode::kInvalidInput,
         "{}: tensor \"{}\" ends at byte {} of {}; the file is truncated — download or copy it again", source,
         shortened(e.name), end, data_bytes);
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  return parse(map_file(path), path.string());
}

SafetensorsFile SafetensorsFile::parse(Buffer file, const std::string& source) {
  if (file.size_bytes() < kLengthBytes)
    fail(ErrorCode::kInvalidInput,
         "{}: is {} bytes long, a safetensors file has at least {}; download or copy it again", source,
         file.size_bytes(), kLengthBytes);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), sizeof header_bytes);
  if (header_bytes > kMaxHeaderBytes)
    fail(ErrorCode::kInvalidInput, "{}: the header claims {} bytes, the format allows {}; is this a safetensors file?",
         source, header_bytes, kMaxHeaderBytes);
  const int64_t data_start = kLengthBytes + static_cast<int64_t>(header_bytes);
  if (data_start > file.size_bytes())
    fail(ErrorCode::kInvalidInput,
         "{}: the header ends at byte {} of {}; the file is truncated — download or copy it again", source, data_start,
         file.size_bytes());
  const std::string_view header(reinterpret_cast<const char*>(file.data()) + kLengthBytes, header_bytes);
  if (!header.starts_with('{'))
    fail(ErrorCode::kInvalidInput, "{}: the header does not begin with '{{'; is this a safetensors file?", source);

  HeaderReader reader(source);
  parse_json_events(header, source + " (header)",
                    {.max_bytes = kMaxHeaderBytes, .max_depth = kMaxHeaderDepth, .allow_nonfinite = false}, reader);
  refuse_duplicate_metadata(reader.metadata, source);

  std::vector<Entry>& entries = reader.entries;
  const int64_t data_bytes = file.size_bytes() - data_start;
  for (const Entry& e : entries) check_entry(e, data_bytes, source);
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return *a.range < *b.range; });
  int64_t covered = 0;
  for (const Entry& e : entries) {
    if (e.range->first != covered)
      fail(ErrorCode::kInvalidInput, "{}: tensor \"{}\" begins at byte {}, the one before it ends at {}: they {}",
           source, shortened(e.name), e.range->first, covered,
           e.range->first < covered ? "overlap" : "leave a gap, which the format forbids");
    covered = e.range->second;
  }
  if (covered != data_bytes)
    fail(ErrorCode::kInvalidInput, "{}: the tensors end at byte {}, the file has {} bytes of data: {} belong to none",
         source, covered, data_bytes, data_bytes - covered);

  SafetensorsFile result;
  result.source_ = source;
  result.metadata_ = std::move(reader.metadata);
  result.tensors_.reserve(entries.size());
  for (Entry& e : entries)
    result.tensors_.push_back({.name = std::move(e.name),
                               .dtype = *e.dtype,
                               .shape = std::move(*e.shape),
                               .bytes = file.slice(data_start + e.range->first, e.range->second - e.range->first)});
  result.by_name_.resize(result.tensors_.size());
  std::iota(result.by_name_.begin(), result.by_name_.end(), 0u);
  const auto name_of_index = [&](uint32_t i) -> const std::string& { return result.tensors_[i].name; };
  std::sort(result.by_name_.begin(), result.by_name_.end(),
            [&](uint32_t a, uint32_t b) { return name_of_index(a) < name_of_index(b); });
  const auto twice = std::adjacent_find(result.by_name_.begin(), result.by_name_.end(),
                                        [&](uint32_t a, uint32_t b) { return name_of_index(a) == name_of_index(b); });
  if (twice != result.by_name_.end())
    fail(ErrorCode::kInvalidInput, "{}: two tensors are named \"{}\"; the header is damaged", source,
         shortened(name_of_index(*twice)));
  return result;
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto it = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                   [&](uint32_t i, std::string_view wanted) { return tensors_[i].name < wanted; });
  return it != by_name_.end() && tensors_[*it].name == name ? &tensors_[*it] : nullptr;
}

const TensorView& SafetensorsFile::at(std::string_view name) const {
  const TensorView* tensor = find(name);
  if (!tensor)
    fail(ErrorCode::kNotFound, "{}: has no tensor \"{}\" among its {}", source_, shortened(name), tensors_.size());
  return *tensor;
}

}  // namespace pmetal::formats
