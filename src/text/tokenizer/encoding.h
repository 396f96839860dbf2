// What encoding a text gives.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace pmetal::text {

struct Offset {
  uint32_t begin = 0, end = 0;  // code points of the text the token came from
  bool operator==(const Offset&) const = default;
};

// Vectors of one length, except `offsets`, which is empty unless asked for.
struct Encoding {
  std::vector<int32_t> ids;
  std::vector<Offset> offsets;
  std::vector<int32_t> type_ids;
  std::vector<uint8_t> special_mask;    // 1: added by the template or by padding
  std::vector<uint8_t> attention_mask;  // 0: padding
  std::vector<Encoding> overflow;       // what truncation cut off, in overlapping parts where the stride is positive
};

struct Truncation {
  enum class Strategy { kLongestFirst, kOnlyFirst, kOnlySecond };
  enum class Direction { kLeft, kRight };
  size_t max_length = 512;  // template tokens included
  size_t stride = 0;        // tokens that neighbouring parts share
  Strategy strategy = Strategy::kLongestFirst;
  Direction direction = Direction::kRight;
};

struct Padding {
  enum class Direction { kLeft, kRight };
  std::optional<size_t> fixed_length;  // nothing: longest of the batch
  size_t multiple_of = 0;              // 0: any length
  Direction direction = Direction::kRight;
  int32_t pad_id = 0, pad_type_id = 0;
};

struct EncodeOptions {
  bool add_special_tokens = true;
  bool with_offsets = false;
  std::optional<std::string_view> pair;  // second text
  std::optional<Truncation> truncation;  // instead of the file's
  bool apply_file_limits = true;         // false: the file's truncation and padding sections do not apply
};

}  // namespace pmetal::text
