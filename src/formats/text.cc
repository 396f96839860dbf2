#include "formats/text.h"

#include <fmt/format.h>

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

}  // namespace pmetal::formats
