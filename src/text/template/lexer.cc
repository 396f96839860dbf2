#include "text/template/lexer.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "base/error.h"
#include "text/template/template.h"
#include "text/template/unicode.h"

namespace pmetal::text::jinja {
namespace {

// longest first, so that "//" is not read as two "/"
constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                           "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)) {}

  std::vector<Token> run() {
    while (position_ < source_.size()) text_until_tag();
    push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  static std::string normalized(std::string_view source) {
    std::string out;
    out.reserve(source.size());
    for (size_t i = 0; i < source.size(); ++i) {
      if (source[i] == '\r') {
        out.push_back('\n');
        if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      } else {
        out.push_back(source[i]);
      }
    }
    if (!out.empty() && out.back() == '\n') out.pop_back();
    return out;
  }

  [[noreturn]] void error(const std::string& what) const {
    throw TemplateError(ErrorCode::kInvalidInput, "", line_, what);
  }

  void push(TokenKind kind, std::string text) { tokens_.push_back({kind, line_, std::move(text), Value()}); }

  bool at(std::string_view text, size_t position) const { return source_.compare(position, text.size(), text) == 0; }

  void advance(size_t end) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(position_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
    position_ = end;
  }

  size_t skip_space(size_t position) const {
    while (position < source_.size() && unicode::is_space(unicode::decode(source_, position)))
      position += unicode::sequence_length(source_, position);
    return position;
  }

  // what precedes a tag, with the whitespace its sign takes away; `is_variable` tags are not lstripped
  std::string_view before_tag(size_t begin, size_t end, char sign, bool is_variable) const {
    std::string_view text(source_.data() + begin, end - begin);
    if (sign == '-') return unicode::strip(text, nullptr, false, true);
    if (sign == '+' || is_variable) return text;
    const size_t newline = text.rfind('\n');
    const size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
    if (line_start == 0 && newline == std::string_view::npos && !line_starting_) return text;
    if (line_start == text.size()) return text;
    return unicode::strip(text.substr(line_start), nullptr, true, false).empty() ? text.substr(0, line_start) : text;
  }

  void text_until_tag() {
    const size_t begin = position_;
    size_t tag = begin;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        push(TokenKind::kData, source_.substr(begin));
        advance(source_.size());
        return;
      }
      const char next = source_[tag + 1];
      if (next == '{' || next == '%' || next == '#') break;
      ++tag;
    }
    const char type = source_[tag + 1];
    size_t after = tag + 2;
    const char sign = after < source_.size() && (source_[after] == '-' || source_[after] == '+') ? source_[after] : ' ';
    if (sign != ' ') ++after;
    const std::string_view text = before_tag(begin, tag, sign, type == '{');
    if (!text.empty()) push(TokenKind::kData, std::string(text));
    advance(after);
    line_starting_ = false;
    if (type == '#') return comment();
    if (type == '%' && raw(after)) return;
    push(type == '{' ? TokenKind::kVariableBegin : TokenKind::kBlockBegin, "");
    tag_body(type == '{' ? "}}" : "%}");
  }

  // consumes the end of a tag at `position` (which may carry a sign) when it is there
  bool tag_end(std::string_view closing, size_t position, size_t* end) const {
    const bool is_variable = closing == "}}";
    if (at("-", position) && at(closing, position + 1)) {
      *end = skip_space(position + 1 + closing.size());
      return true;
    }
    if (!is_variable && at("+", position) && at(closing, position + 1)) {
      *end = position + 1 + closing.size();
      return true;
    }
    if (!at(closing, position)) return false;
    *end = position + closing.size();
    if (!is_variable && *end < source_.size() && source_[*end] == '\n') ++*end;  // trim_blocks
    return true;
  }

  void finish_tag(size_t end) {
    line_starting_ = end > 0 && source_[end - 1] == '\n';
    advance(end);
  }

  void comment() {
    for (size_t i = position_; (i = source_.find("#}", i)) != std::string::npos; ++i) {
      size_t start = i;
      if (i > position_ && (source_[i - 1] == '-' || source_[i - 1] == '+')) start = i - 1;
      size_t end = 0;
      if (tag_end("#}", start, &end)) return finish_tag(end);
    }
    error("Missing end of comment tag");
  }

  bool raw(size_t after) {
    size_t i = skip_space(after);
    if (!at("raw", i)) return false;
    i = skip_space(i + 3);
    if (at("-%}", i))
      i = skip_space(i + 3);
    else if (at("%}", i))
      i += 2;
    else
      return false;
    finish_tag(i);
    for (size_t tag = position_; (tag = source_.find("{%", tag)) != std::string::npos; ++tag) {
      size_t k = tag + 2;
      char sign = ' ';
      if (k < source_.size() && (source_[k] == '-' || source_[k] == '+')) sign = source_[k++];
      k = skip_space(k);
      if (!at("endraw", k)) continue;
      size_t end = 0;
      if (!tag_end("%}", skip_space(k + 6), &end)) continue;
      const std::string_view text = before_tag(position_, tag, sign, false);
      if (!text.empty()) push(TokenKind::kData, std::string(text));
      finish_tag(end);
      return true;
    }
    error("Missing end of raw directive");
  }

  void tag_body(std::string_view closing) {
    std::string brackets;
    while (true) {
      advance(skip_space(position_));
      if (position_ >= source_.size()) {
        push(TokenKind::kEnd, "");
        return;
      }
      size_t end = 0;
      if (brackets.empty() && tag_end(closing, position_, &end)) {
        push(closing == "}}" ? TokenKind::kVariableEnd : TokenKind::kBlockEnd, "");
        return finish_tag(end);
      }
      const char c = source_[position_];
      if (c >= '0' && c <= '9') {
        number();
      } else if (c == '"' || c == '\'') {
        string(c);
      } else if (unicode::is_word(unicode::decode(source_, position_))) {
        name();
      } else {
        operator_token(brackets);
      }
    }
  }

  void name() {
    size_t end = position_;
    while (end < source_.size() && unicode::is_word(unicode::decode(source_, end)))
      end += unicode::sequence_length(source_, end);
    push(TokenKind::kName, source_.substr(position_, end - position_));
    position_ = end;
  }

  void operator_token(std::string& brackets) {
    for (const std::string_view op : kOperators) {
      if (!at(op, position_)) continue;
      if (op == "(" || op == "[" || op == "{") brackets.push_back(op == "(" ? ')' : op == "[" ? ']' : '}');
      if (op == ")" || op == "]" || op == "}") {
        if (brackets.empty()) error(fmt::format("unexpected '{}'", op));
        if (brackets.back() != op[0]) error(fmt::format("unexpected '{}', expected '{}'", op, brackets.back()));
        brackets.pop_back();
      }
      push(TokenKind::kOperator, std::string(op));
      position_ += op.size();
      return;
    }
    error(fmt::format("unexpected char '{}'", source_.substr(position_, unicode::sequence_length(source_, position_))));
  }

  // digits of `base` with single underscores between them; returns the end
  size_t digits(size_t i, int base, bool leading_underscore) const {
    const auto is_digit = [&](size_t k) {
      if (k >= source_.size()) return false;
      const char c = source_[k];
      const int value = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : 99;
      return value < base;
    };
    size_t end = i;
    if (leading_underscore && end < source_.size() && source_[end] == '_' && is_digit(end + 1)) ++end;
    while (is_digit(end) || (end > i && end < source_.size() && source_[end] == '_' && is_digit(end + 1))) ++end;
    return end;
  }

  void number() {
    const size_t begin = position_;
    const auto plain = [&](size_t from, size_t to) {
      std::string out;
      for (size_t i = from; i < to; ++i)
        if (source_[i] != '_') out.push_back(source_[i]);
      return out;
    };
    size_t end = digits(begin, 10, false);
    size_t fraction = end;
    if (end < source_.size() && source_[end] == '.') {
      const size_t after = digits(end + 1, 10, false);
      if (after > end + 1) fraction = after;
    }
    size_t exponent = fraction;
    if (fraction < source_.size() && (source_[fraction] | 32) == 'e') {
      size_t k = fraction + 1;
      if (k < source_.size() && (source_[k] == '+' || source_[k] == '-')) ++k;
      const size_t after = digits(k, 10, false);
      if (after > k) exponent = after;
    }
    const bool follows_dot = begin > 0 && source_[begin - 1] == '.';
    if (exponent > end && !follows_dot) {
      push(TokenKind::kFloat, "");
      tokens_.back().number = Value::real(std::strtod(plain(begin, exponent).c_str(), nullptr));
      position_ = exponent;
      return;
    }
    int base = 10;
    size_t first = begin;
    if (source_[begin] == '0') {
      const char mark = begin + 1 < source_.size() ? static_cast<char>(source_[begin + 1] | 32) : ' ';
      const int wanted = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
      const size_t after = wanted ? digits(begin + 2, wanted, true) : begin;
      if (wanted && after > begin + 2) {
        base = wanted;
        first = begin + 2;
        end = after;
      } else {  // 0 may only be followed by more zeros: "01" is 0 and then 1
        end = begin + 1;
        while (end < source_.size() &&
               (source_[end] == '0' || (source_[end] == '_' && end + 1 < source_.size() && source_[end + 1] == '0')))
          ++end;
      }
    }
    const std::string text = plain(first, end);
    int64_t value = 0;
    const auto [_, code] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    push(TokenKind::kInteger, "");
    if (code != std::errc() && base != 10) error("integer constant is too large");
    tokens_.back().number = code == std::errc() ? Value::integer(value) : Value::big_integer(text);
    position_ = end;
  }

  void string(char quote) {
    std::string out;
    size_t i = position_ + 1;
    for (;; ++i) {
      if (i >= source_.size()) error("unexpected char " + std::string(1, quote));
      const char c = source_[i];
      if (c == quote) break;
      if (c != '\\') {
        out.push_back(c);
        continue;
      }
      if (++i >= source_.size()) error("unexpected char " + std::string(1, quote));
      i = escape(i, out);
    }
    push(TokenKind::kString, std::move(out));
    advance(i + 1);
  }

  // the escape whose letter stands at i; returns the index of its last byte. As Python's unicode-escape.
  size_t escape(size_t i, std::string& out) {
    const auto hex = [&](size_t n) {
      const std::string text = source_.substr(i + 1, n);
      unsigned value = 0;
      const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
      if (code != std::errc() || text.size() != n || end != text.data() + n) error("truncated escape in string");
      if (value > 0x10ffff) error("illegal Unicode character");
      unicode::append(out, value);
      return i + n;
    };
    const char c = source_[i];
    switch (c) {
      case '\n': return i;
      case '\\':
      case '\'':
      case '"': out.push_back(c); return i;
      case 'a': out.push_back('\a'); return i;
      case 'b': out.push_back('\b'); return i;
      case 'f': out.push_back('\f'); return i;
      case 'n': out.push_back('\n'); return i;
      case 'r': out.push_back('\r'); return i;
      case 't': out.push_back('\t'); return i;
      case 'v': out.push_back('\v'); return i;
      case 'x': return hex(2);
      case 'u': return hex(4);
      case 'U': return hex(8);
      case 'N': error("named Unicode escapes (\\N{...}) are not supported in template strings; use \\u or \\U");
      default: break;
    }
    if (c >= '0' && c <= '7') {
      unsigned value = 0;
      size_t k = i;
      while (k < i + 3 && k < source_.size() && source_[k] >= '0' && source_[k] <= '7')
        value = value * 8 + static_cast<unsigned>(source_[k++] - '0');
      unicode::append(out, value);
      return k - 1;
    }
    out.push_back('\\');
    out.push_back(c);
    return i;
  }

  std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  if (!unicode::is_valid(source)) fail(ErrorCode::kInvalidInput, "the template is not valid UTF-8");
  return Lexer(source).run();
}

}  // namespace pmetal::text::jinja
