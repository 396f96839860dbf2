#include "text/tokenizer/charsmap.h"

#include <cstring>

#include "base/error.h"
#include "text/tokenizer/unicode.h"

namespace pmetal::text {

namespace {
// Units: bits 0-7 and 31 label, bit 8 has-value, bit 9 and 10-30 offset to the children.
uint32_t label(uint32_t unit) { return unit & (1u << 31 | 0xff); }
uint32_t children(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }
}  // namespace

Charsmap::Charsmap(std::string_view blob, const std::string& where) {
  if (blob.empty()) return;
  uint32_t size = 0;
  if (blob.size() < sizeof size) fail(ErrorCode::kInvalidInput, "{}: a character map of {} bytes", where, blob.size());
  std::memcpy(&size, blob.data(), sizeof size);
  blob.remove_prefix(sizeof size);
  if (size % 4 != 0 || size > blob.size() || size < 4)
    fail(ErrorCode::kInvalidInput, "{}: the character map's trie has {} bytes, {} are there", where, size, blob.size());
  units_.resize(size / 4);
  std::memcpy(units_.data(), blob.data(), size);
  replacements_ = blob.substr(size);
  replacements_ += '\0';
  if (!is_valid_utf8(replacements_))
    fail(ErrorCode::kInvalidInput, "{}: the character map's replacements are not UTF-8", where);
}

std::optional<Charsmap::Match> Charsmap::find(std::string_view text, bool first) const {
  std::optional<Match> best;
  if (units_.empty()) return best;
  size_t node = children(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    if (byte == 0) break;
    node ^= byte;
    if (node >= units_.size() || label(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= children(unit);
    if ((unit >> 8 & 1) == 0) continue;
    if (node >= units_.size()) break;
    const size_t offset = units_[node] & 0x7fffffff;
    if (offset >= replacements_.size() || is_utf8_continuation(replacements_[offset])) break;
    best = Match{i + 1, std::string_view(replacements_.data() + offset)};
    if (first) break;
  }
  return best;
}

}  // namespace pmetal::text
