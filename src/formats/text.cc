#include "formats/text.h"

#include <fmt/format.h>

#include "base/error.h"
#include "formats/json_events.h"

namespace pmetal::formats {

std::string shortened(std::string_view text) {
  constexpr size_t kLongest = 120;
  std::string out;
  while (!text.empty()) {
    if (out.size() >= kLongest) return out + "...";
    const size_t length = utf8_sequence_length(text);
    const auto c = static_cast<unsigned char>(text.front());
    const bool is_printable = length > 1 || (length == 1 && c >= 0x20 && c != 0x7f);
    const size_t taken = is_printable ? length : 1;
    if (is_printable)
      out += text.substr(0, taken);
    else
      out += fmt::format("\\x{:02x}", c);
    text.remove_prefix(taken);
  }
  return out;
}

std::string json_quoted(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const size_t length = utf8_sequence_length(text);
    const char c = text.front();
    if (length == 0) {
      out += "\xef\xbf\xbd";
    } else if (length > 1) {
      out += text.substr(0, length);
    } else {
      switch (c) {
        case '"': out += "\\\""; break;
        case '\\': out += "\\\\"; break;
        case '\b': out += "\\b"; break;
        case '\f': out += "\\f"; break;
        case '\n': out += "\\n"; break;
        case '\r': out += "\\r"; break;
        case '\t': out += "\\t"; break;
        default:
          if (static_cast<unsigned char>(c) < 0x20)
            out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
          else
            out += c;
      }
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out + "\"";
}

bool is_valid_utf8(std::string_view s) {
  for (size_t i = 0; i < s.size();) {
    const auto c = static_cast<uint8_t>(s[i]);
    if (c < 0x80) {
      ++i;
      continue;
    }
    const int n = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc2 ? 1 : 0;
    if (n == 0 || c > 0xf4 || i + static_cast<size_t>(n) >= s.size()) return false;
    uint32_t code = c & (0x3fu >> n);
    for (int k = 1; k <= n; ++k) {
      const auto d = static_cast<uint8_t>(s[i + static_cast<size_t>(k)]);
      if ((d & 0xc0) != 0x80) return false;
      code = code << 6 | (d & 0x3f);
    }
    if ((n == 2 && (code < 0x800 || (code >= 0xd800 && code < 0xe000))) ||
        (n == 3 && (code < 0x10000 || code > 0x10ffff)))
      return false;
    i += static_cast<size_t>(n) + 1;
  }
  return true;
}

void append_json_string(std::string& out, std::string_view text, std::string_view what) {
  if (!is_valid_utf8(text)) fail(ErrorCode::kInvalidInput, "{}: not valid UTF-8 text", what);
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (static_cast<uint8_t>(c) < 0x20) {
          out += "\\u00";
          out += kHex[c >> 4];
          out += kHex[c & 15];
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

}  // namespace pmetal::formats
