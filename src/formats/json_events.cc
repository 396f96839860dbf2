#include "formats/json_events.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace pmetal::formats {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

void append_utf8(std::string& out, uint32_t code_point) {
  const auto put = [&out](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) return put(code_point);
  if (code_point < 0x800) {
    put(0xc0 | (code_point >> 6));
  } else {
    if (code_point < 0x10000) {
      put(0xe0 | (code_point >> 12));
    } else {
      put(0xf0 | (code_point >> 18));
      put(0x80 | ((code_point >> 12) & 63));
    }
    put(0x80 | ((code_point >> 6) & 63));
  }
  put(0x80 | (code_point & 63));
}

class Parser {
 public:
  Parser(std::string_view text, const std::string& source, const JsonLimits& limits, JsonEvents& events)
      : text_(text), source_(source), limits_(limits), events_(events) {}

  void document() {
    if (text_.size() > limits_.max_bytes)
      fail(ErrorCode::kInvalidInput, "{}: is {} bytes long, at most {} are read as JSON", source_, text_.size(),
           limits_.max_bytes);
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;  // byte order mark
    skip_space();
    value(0);
    skip_space();
    if (at_ < text_.size()) error_expected("the end of the file");
  }

 private:
  [[noreturn]] void error_at(size_t at, const std::string& message) const {
    const std::string_view before = text_.substr(0, at);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const size_t newline = before.rfind('\n');
    fail(ErrorCode::kInvalidInput, "{}:{}:{}: {}", source_, line,
         at - (newline == std::string_view::npos ? 0 : newline + 1) + 1, message);
  }
  [[noreturn]] void error_expected(std::string_view what) const {
    if (at_ >= text_.size()) error_at(at_, fmt::format("expected {}, got the end of the file", what));
    const auto c = static_cast<unsigned char>(text_[at_]);
    if (c >= 0x20 && c < 0x7f) error_at(at_, fmt::format("expected {}, got '{}'", what, text_[at_]));
    error_at(at_, fmt::format("expected {}, got byte 0x{:02x}", what, c));
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(std::string_view token) {
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
      ++at_;
  }

  void value(int depth) {
    switch (peek()) {
      case '{': return object(depth + 1);
      case '[': return array(depth + 1);
      case '"': return events_.on_string(string());
      case '-':
        if (nonfinite("-Infinity", -std::numeric_limits<double>::infinity())) return;
        return number();
      case 'N':
        if (nonfinite("NaN", std::numeric_limits<double>::quiet_NaN())) return;
        break;
      case 'I':
        if (nonfinite("Infinity", std::numeric_limits<double>::infinity())) return;
        break;
      case 't':
        if (take("true")) return events_.on_bool(true);
        break;
      case 'f':
        if (take("false")) return events_.on_bool(false);
        break;
      case 'n':
        if (take("null")) return events_.on_null();
        break;
      default:
        if (is_digit(peek())) return number();
    }
    error_expected("a JSON value");
  }

  bool nonfinite(std::string_view token, double value) {
    if (!limits_.allow_nonfinite || !take(token)) return false;
    events_.on_number(value);
    return true;
  }

  void enter(int depth) {
    if (depth > limits_.max_depth) error_at(at_, fmt::format("nested deeper than {} levels", limits_.max_depth));
    ++at_;
    skip_space();
  }

  void object(int depth) {
    enter(depth);
    events_.on_begin_object();
    if (!take("}")) {
      for (;;) {
        if (peek() != '"') error_expected("a key in double quotes");
        events_.on_key(string());
        skip_space();
        if (!take(":")) error_expected("':' after the key");
        skip_space();
        value(depth);
        skip_space();
        if (take("}")) break;
        if (!take(",")) error_expected("',' or '}' after a value");
        skip_space();
      }
    }
    events_.on_end_object();
  }

  void array(int depth) {
    enter(depth);
    events_.on_begin_array();
    if (!take("]")) {
      for (;;) {
        value(depth);
        skip_space();
        if (take("]")) break;
        if (!take(",")) error_expected("',' or ']' after a value");
        skip_space();
      }
    }
    events_.on_end_array();
  }

  std::string string() {
    const size_t open = at_++;
    std::string out;
    for (;;) {
      size_t run = at_;
      while (run < text_.size() && text_[run] >= 0x20 && text_[run] != '"' && text_[run] != '\\') ++run;
      out.append(text_.substr(at_, run - at_));
      at_ = run;
      if (at_ >= text_.size()) error_at(open, "this string has no closing quote");
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c == '"') {
        ++at_;
        return out;
      }
      if (c == '\\') {
        escape(out);
      } else if (c < 0x20) {
        error_at(at_, fmt::format("control byte 0x{:02x} inside a string must be escaped", c));
      } else {
        const size_t length = utf8_sequence_length(text_.substr(at_));
        if (length == 0) error_at(at_, fmt::format("byte 0x{:02x} inside a string is not valid UTF-8", c));
        out.append(text_.substr(at_, length));
        at_ += length;
      }
    }
  }

  void escape(std::string& out) {
    const size_t start = at_++;
    const char c = peek();
    ++at_;
    switch (c) {
      case '"':
      case '\\':
      case '/': out.push_back(c); return;
      case 'b': out.push_back('\b'); return;
      case 'f': out.push_back('\f'); return;
      case 'n': out.push_back('\n'); return;
      case 'r': out.push_back('\r'); return;
      case 't': out.push_back('\t'); return;
      case 'u': break;
      default: error_at(start, "unknown escape; \\\" \\\\ \\/ \\b \\f \\n \\r \\t and \\uXXXX exist");
    }
    uint32_t code = hex4(start);
    if (code >= 0xdc00 && code < 0xe000) error_at(start, "second half of a surrogate pair without the first");
    if (code >= 0xd800 && code < 0xdc00) {
      if (!take("\\u")) error_at(start, "first half of a surrogate pair without the second");
      const uint32_t low = hex4(start);
      if (low < 0xdc00 || low >= 0xe000) error_at(start, "first half of a surrogate pair without the second");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    append_utf8(out, code);
  }

  uint32_t hex4(size_t start) {
    uint32_t code = 0;
    const std::string_view digits = text_.substr(std::min(at_, text_.size()), 4);
    const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() != 4 || status != std::errc() || end != digits.data() + 4)
      error_at(start, "\\u needs four hexadecimal digits");
    at_ += 4;
    return code;
  }

  void digits(std::string_view where) {
    if (!is_digit(peek())) error_expected(where);
    while (is_digit(peek())) ++at_;
  }

  void number() {
    const size_t start = at_;
    const bool is_negative = take("-");
    if (!take("0")) digits("a digit");
    bool is_integer = true;
    if (take(".")) {
      is_integer = false;
      digits("a digit after the decimal point");
    }
    if (peek() == 'e' || peek() == 'E') {
      is_integer = false;
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      digits("a digit of the exponent");
    }
    const char* begin = text_.data() + start;
    const char* end = text_.data() + at_;
    if (is_integer && is_negative) {
      int64_t v = 0;
      if (std::from_chars(begin, end, v).ec == std::errc()) return events_.on_integer(v);
    } else if (is_integer) {
      uint64_t v = 0;
      if (std::from_chars(begin, end, v).ec == std::errc()) return events_.on_unsigned(v);
    }
    double v = 0;
    if (std::from_chars(begin, end, v).ec == std::errc::result_out_of_range) {
      if (!is_tiny({begin, static_cast<size_t>(end - begin)})) error_at(start, "this number is too large for a double");
      v = is_negative ? -0.0 : 0.0;
    }
    events_.on_number(v);
  }

  // A number out of the range of double is too large or rounds to zero: tells by the place of its first digit.
  static bool is_tiny(std::string_view number) {
    const size_t e = number.find_first_of("eE");
    const std::string_view mantissa = number.substr(0, e);
    const size_t point = std::min(mantissa.find('.'), mantissa.size());
    const size_t first = mantissa.find_first_of("123456789");
    if (e == std::string_view::npos) return first > point;
    std::string_view text = number.substr(e + 1);
    const bool is_negative = text.front() == '-';
    if (!is_digit(text.front())) text.remove_prefix(1);
    int64_t exponent = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), exponent).ec != std::errc()) return is_negative;
    const int64_t place = static_cast<int64_t>(point) - static_cast<int64_t>(first);
    return (is_negative ? -exponent : exponent) < -place;
  }

  std::string_view text_;
  const std::string& source_;
  const JsonLimits& limits_;
  JsonEvents& events_;
  size_t at_ = 0;
};

}  // namespace

size_t utf8_sequence_length(std::string_view text) {
  if (text.empty()) return 0;
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto is_tail = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const unsigned b0 = byte(0), b1 = byte(1);
  if (b0 < 0x80) return 1;
  if (b0 >= 0xc2 && b0 < 0xe0) return is_tail(1) ? 2 : 0;
  if (b0 >= 0xe0 && b0 < 0xf0) {
    const bool is_overlong = b0 == 0xe0 && b1 < 0xa0, is_surrogate = b0 == 0xed && b1 >= 0xa0;
    return is_tail(1) && is_tail(2) && !is_overlong && !is_surrogate ? 3 : 0;
  }
  if (b0 >= 0xf0 && b0 < 0xf5) {
    const bool is_overlong = b0 == 0xf0 && b1 < 0x90, is_beyond = b0 == 0xf4 && b1 >= 0x90;
    return is_tail(1) && is_tail(2) && is_tail(3) && !is_overlong && !is_beyond ? 4 : 0;
  }
  return 0;
}

void parse_json_events(std::string_view text, const std::string& source, const JsonLimits& limits, JsonEvents& events) {
  Parser(text, source, limits, events).document();
}

}  // namespace pmetal::formats
