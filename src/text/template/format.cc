#include "text/template/format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "text/template/arguments.h"
#include "text/template/interpreter.h"
#include "text/template/markup.h"
#include "text/template/repr.h"
#include "text/template/unicode.h"

namespace pmetal::text::jinja {
namespace {

constexpr int64_t kMaxWidth = 1 << 20;   // of one field
constexpr int64_t kMaxPrecision = 1000;  // digits of a float

[[noreturn]] void value_error(const std::string& what) { fail(ErrorCode::kInvalidInput, "{}", what); }

std::string ascii_repr(const Value& v) {
  std::string out;
  const std::string text = repr(v);
  for (size_t i = 0; i < text.size(); i += unicode::sequence_length(text, i)) {
    const char32_t c = unicode::decode(text, i);
    if (c < 0x80)
      out += static_cast<char>(c);
    else if (c <= 0xff)
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    else if (c <= 0xffff)
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    else
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
  }
  return out;
}

struct Spec {
  std::string fill = " ";
  char align = 0;  // < > ^ =
  char sign = '-';
  bool is_alternate = false;
  int64_t width = 0;
  char grouping = 0;
  int64_t precision = -1;
  char type = 0;
};

// digits of a non-negative number in base 2, 8, 10 or 16
std::string digits(uint64_t value, int base, bool is_upper) {
  std::string out;
  do {
    const int d = static_cast<int>(value % static_cast<uint64_t>(base));
    out.push_back(static_cast<char>(d < 10 ? '0' + d : (is_upper ? 'A' : 'a') + d - 10));
    value /= static_cast<uint64_t>(base);
  } while (value > 0);
  std::reverse(out.begin(), out.end());
  return out;
}

std::string c_format(double d, char type, int64_t precision, bool is_alternate) {
  const std::string format = std::string("%") + (is_alternate ? "#" : "") + ".*" + type;
  const int size = std::snprintf(nullptr, 0, format.c_str(), static_cast<int>(precision), d);
  std::string out(static_cast<size_t>(size) + 1, '\0');
  std::snprintf(out.data(), out.size(), format.c_str(), static_cast<int>(precision), d);
  out.pop_back();
  return out;
}

// absolute value as text, for e E f F g G %
std::string float_text(double d, char type, int64_t precision, bool is_alternate) {
  if (std::isnan(d)) return type == 'F' || type == 'E' || type == 'G' ? "NAN" : "nan";
  if (std::isinf(d)) return type == 'F' || type == 'E' || type == 'G' ? "INF" : "inf";
  return c_format(std::abs(d), type, precision, is_alternate);
}

std::string group(const std::string& number, char separator, size_t every, size_t min_width) {
  size_t whole = 0;
  while (whole < number.size() && (std::isxdigit(static_cast<unsigned char>(number[whole])) != 0) &&
         (every == 4 || std::isdigit(static_cast<unsigned char>(number[whole])) != 0))
    ++whole;
  std::string head = number.substr(0, whole);
  const std::string tail = number.substr(whole);
  const auto grouped = [&] {
    std::string out;
    for (size_t i = 0; i < head.size(); ++i) {
      if (i > 0 && (head.size() - i) % every == 0) out += separator;
      out += head[i];
    }
    return out;
  };
  std::string out = grouped();
  while (out.size() + tail.size() < min_width) {  // zero padding is grouped too
    head.insert(head.begin(), '0');
    out = grouped();
    if (out.size() + tail.size() > min_width && out[1] == separator) break;
  }
  return out + tail;
}

std::string pad(const std::string& text, const Spec& spec, char default_align) {
  const int64_t size = unicode::count(text);
  if (size >= spec.width) return text;
  const int64_t missing = spec.width - size;
  const char align = spec.align ? spec.align : default_align;
  const int64_t left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += spec.fill;
  out += text;
  for (int64_t i = left; i < missing; ++i) out += spec.fill;
  return out;
}

// sign, prefix and digits joined and padded
std::string finish_number(bool is_negative, const std::string& prefix, std::string body, const Spec& spec) {
  const std::string sign = is_negative ? "-" : spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
  const std::string head = sign + prefix;
  if (spec.grouping) {
    const size_t every = spec.type == 'x' || spec.type == 'X' || spec.type == 'b' || spec.type == 'o' ? 4 : 3;
    const bool is_zero_filled = spec.align == '=' && spec.fill == "0";
    const size_t min_width = is_zero_filled && static_cast<size_t>(spec.width) > head.size()
                                 ? static_cast<size_t>(spec.width) - head.size()
                                 : 0;
    body = group(body, spec.grouping, every, min_width);
  }
  if (spec.align != '=') return pad(head + body, spec, '>');
  Spec inner = spec;
  inner.align = '>';
  inner.width = spec.width - unicode::count(head);
  return head + pad(body, inner, '>');
}

Spec parse_spec(std::string_view text) {
  Spec spec;
  size_t i = 0;
  bool has_fill = false;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  if (!text.empty()) {
    const size_t n = unicode::sequence_length(text, 0);
    if (n < text.size() && is_align(text[n])) {
      spec.fill = std::string(text.substr(0, n));
      spec.align = text[n];
      i = n + 1;
      has_fill = true;
    } else if (is_align(text[0])) {
      spec.align = text[0];
      i = 1;
    }
  }
  const auto number = [&](int64_t limit) {
    int64_t value = 0;
    while (i < text.size() && text[i] >= '0' && text[i] <= '9') {
      value = value * 10 + (text[i++] - '0');
      if (value > limit) value_error("Too many decimal digits in format string");
    }
    return value;
  };
  if (i < text.size() && (text[i] == '+' || text[i] == '-' || text[i] == ' ')) spec.sign = text[i++];
  if (i < text.size() && text[i] == '#') spec.is_alternate = text[i++] == '#';
  if (i < text.size() && text[i] == '0') {
    ++i;
    if (!has_fill) spec.fill = "0";
    if (!spec.align) spec.align = '=';
  }
  spec.width = number(kMaxWidth);
  if (i < text.size() && (text[i] == ',' || text[i] == '_')) spec.grouping = text[i++];
  if (i < text.size() && text[i] == '.') {
    ++i;
    if (i >= text.size() || text[i] < '0' || text[i] > '9') value_error("Format specifier missing precision");
    spec.precision = number(kMaxPrecision);
  }
  if (i < text.size()) spec.type = text[i++];
  if (i < text.size()) value_error(fmt::format("Invalid format specifier '{}'", text));
  return spec;
}

std::string format_real(double d, Spec spec) {
  const bool is_negative = std::signbit(d) && !std::isnan(d);
  if (spec.type == 0 && spec.precision < 0) return finish_number(is_negative, "", repr_float(std::abs(d)), spec);
  std::string body;
  switch (spec.type) {
    case '%': body = float_text(d * 100, 'f', spec.precision < 0 ? 6 : spec.precision, spec.is_alternate) + "%"; break;
    case 'e':
    case 'E':
    case 'f':
    case 'F': body = float_text(d, spec.type, spec.precision < 0 ? 6 : spec.precision, spec.is_alternate); break;
    case 'g':
    case 'G':
    case 'n': {
      const char type = spec.type == 'n' ? 'g' : spec.type;
      body = float_text(d, type, spec.precision < 0 ? 6 : std::max<int64_t>(spec.precision, 1), spec.is_alternate);
      break;
    }
    case 0: {  // like g, but with a digit after the point and the exponent from the precision on
      const int64_t p = std::max<int64_t>(spec.precision, 1);
      body = float_text(d, 'g', p, spec.is_alternate);
      if (std::isfinite(d) && body.find('e') == std::string::npos && body.find('.') == std::string::npos) {
        if (static_cast<int64_t>(body.size()) >= p && d != 0 &&
            std::abs(d) >= std::pow(10.0, static_cast<double>(p - 1)))
          body = float_text(d, 'e', p - 1, spec.is_alternate);
        else
          body += ".0";
      }
      break;
    }
    default: value_error(fmt::format("Unknown format code '{}' for object of type 'float'", spec.type));
  }
  return finish_number(is_negative, "", body, spec);
}

std::string format_integer(const Value& v, Spec spec) {
  if (spec.type && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos)
    return format_real(v.to_real(), spec);
  if (spec.precision >= 0) value_error("Precision not allowed in integer format specifier");
  if (v.is(Kind::kBigInt)) {
    if (spec.type && spec.type != 'd') fail(ErrorCode::kInvalidInput, "integer {} is too large here", v.text());
    const bool is_negative = v.text()[0] == '-';
    return finish_number(is_negative, "", is_negative ? v.text().substr(1) : v.text(), spec);
  }
  const int64_t i = v.as_int();
  const uint64_t magnitude = i < 0 ? 0 - static_cast<uint64_t>(i) : static_cast<uint64_t>(i);
  switch (spec.type) {
    case 0:
    case 'd':
    case 'n': return finish_number(i < 0, "", digits(magnitude, 10, false), spec);
    case 'b': return finish_number(i < 0, spec.is_alternate ? "0b" : "", digits(magnitude, 2, false), spec);
    case 'o': return finish_number(i < 0, spec.is_alternate ? "0o" : "", digits(magnitude, 8, false), spec);
    case 'x': return finish_number(i < 0, spec.is_alternate ? "0x" : "", digits(magnitude, 16, false), spec);
    case 'X': return finish_number(i < 0, spec.is_alternate ? "0X" : "", digits(magnitude, 16, true), spec);
    case 'c': {
      if (i < 0 || i > 0x10ffff) value_error("%c arg not in range(0x110000)");
      std::string text;
      unicode::append(text, static_cast<char32_t>(i));
      return pad(text, spec, '>');
    }
    default: value_error(fmt::format("Unknown format code '{}' for object of type 'int'", spec.type));
  }
}

}  // namespace

std::string format_spec(Interpreter& in, const Value& v, std::string_view text) {
  if (text.empty()) return in.to_text(v);
  if (v.is(Kind::kUndefined) || !(v.is_number() || v.is_string()))
    throw_type_error(fmt::format("unsupported format string passed to {}.__format__", type_name(v)));
  Spec spec = parse_spec(text);
  if (v.is(Kind::kFloat)) return format_real(v.as_real(), spec);
  if (v.is_number()) {
    if (v.is(Kind::kBool) && spec.type == 0 && spec.precision < 0)
      return format_integer(Value::integer(v.as_int()), spec);
    return format_integer(v, spec);
  }
  if (spec.type && spec.type != 's')
    value_error(fmt::format("Unknown format code '{}' for object of type 'str'", spec.type));
  if (spec.sign != '-') value_error("Sign not allowed in string format specifier");
  if (spec.align == '=') {
    if (spec.fill != "0") value_error("'=' alignment not allowed in string format specifier");
    spec.align = '<';
  }
  std::string body = v.text();
  if (spec.precision >= 0) body.resize(unicode::offset(body, spec.precision));
  return pad(body, spec, '<');
}

Value format_percent(Interpreter& in, const Value& format, const Value& values) {
  const std::string& text = format.text();
  const bool is_tuple = values.is(Kind::kTuple);
  size_t used = 0;
  bool used_mapping = false;
  const auto next_argument = [&]() -> Value {
    if (is_tuple) {
      if (used >= values.items().size()) throw_type_error("not enough arguments for format string");
      return values.items()[used++];
    }
    if (used++ > 0) throw_type_error("not enough arguments for format string");
    return values;
  };
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (text[i] != '%') {
      out += text[i++];
      continue;
    }
    const auto peek = [&]() -> char {
      if (i >= text.size()) value_error("incomplete format");
      return text[i];
    };
    ++i;
    if (peek() == '%') {
      out += '%';
      ++i;
      continue;
    }
    Value argument;
    bool has_argument = false;
    if (peek() == '(') {
      int open = 1;
      const size_t start = ++i;
      for (; open > 0; ++i) {
        const char c = peek();
        open += c == '(' ? 1 : c == ')' ? -1 : 0;
      }
      if (!values.is(Kind::kDict)) throw_type_error("format requires a mapping");
      const std::string key = text.substr(start, i - 1 - start);
      const Value* found = values.dict().find(key);
      if (!found) fail(ErrorCode::kInvalidInput, "KeyError: '{}'", key);
      argument = *found;
      has_argument = used_mapping = true;
    }
    Spec spec;
    bool is_zero = false, is_left = false;
    for (; std::string_view("-+ #0").find(peek()) != std::string_view::npos; ++i) {
      if (text[i] == '-') is_left = true;
      if (text[i] == '+') spec.sign = '+';
      if (text[i] == ' ' && spec.sign != '+') spec.sign = ' ';
      if (text[i] == '#') spec.is_alternate = true;
      if (text[i] == '0') is_zero = true;
    }
    const auto number = [&](int64_t limit) {
      int64_t value = 0;
      if (peek() == '*') {
        ++i;
        value = to_index(next_argument());
      } else {
        while (peek() >= '0' && peek() <= '9' && value <= limit) value = value * 10 + (text[i++] - '0');
      }
      if (value > limit) value_error("the format width or precision is too large");
      return value;
    };
    spec.width = number(kMaxWidth);
    if (spec.width < 0) {
      is_left = true;
      spec.width = -spec.width;
    }
    if (peek() == '.') {
      ++i;
      spec.precision = std::max<int64_t>(number(kMaxPrecision), 0);
    }
    while (peek() == 'l' || peek() == 'h' || peek() == 'L') ++i;
    char type = peek();
    ++i;
    if (!has_argument) argument = next_argument();
    const auto align = [&](bool is_number) {
      if (is_left) {
        spec.align = '<';
      } else if (is_zero && is_number) {
        spec.align = '=';
        spec.fill = "0";
      } else {
        spec.align = '>';
      }
    };
    if (type == 's' || type == 'r' || type == 'a') {
      std::string body = type == 's' ? in.to_text(argument) : type == 'r' ? in.to_repr(argument) : ascii_repr(argument);
      if (format.is_markup() && !argument.is_markup()) body = escape_html(body);
      if (spec.precision >= 0) body.resize(unicode::offset(body, spec.precision));
      align(false);
      out += pad(body, spec, '>');
    } else if (type == 'c') {
      align(false);
      if (argument.is_string()) {
        if (argument.string_object().n_chars != 1) throw_type_error("%c requires int or char");
        out += pad(argument.text(), spec, '>');
      } else {
        if (!argument.is_integral()) throw_type_error("%c requires int or char");
        spec.type = 'c';
        out += format_integer(argument, spec);
      }
    } else if (std::string_view("diuxXo").find(type) != std::string_view::npos) {
      if (argument.is_undefined()) throw_undefined(argument);
      const bool is_decimal = type == 'd' || type == 'i' || type == 'u';
      if (!argument.is_number() || (!is_decimal && argument.is(Kind::kFloat)))
        throw_type_error(fmt::format("%{} format: {} is required, not {}", type,
                                     is_decimal ? "a real number" : "an integer", type_name(argument)));
      if (argument.is(Kind::kFloat)) {
        const double d = std::trunc(argument.as_real());
        if (!(std::abs(d) < 9.2e18)) value_error("cannot convert this float to integer");
        argument = Value::integer(static_cast<int64_t>(d));
      }
      spec.type = is_decimal ? 'd' : type;
      align(true);
      if (spec.precision >= 0) {  // minimal number of digits
        Spec plain;
        plain.type = spec.type;
        std::string body = format_integer(argument, plain);
        const bool is_negative = body[0] == '-';
        if (is_negative) body.erase(0, 1);
        while (static_cast<int64_t>(body.size()) < spec.precision) body.insert(body.begin(), '0');
        const std::string prefix = !spec.is_alternate ? ""
                                   : type == 'x'      ? "0x"
                                   : type == 'X'      ? "0X"
                                   : type == 'o'      ? "0o"
                                                      : "";
        out += finish_number(is_negative, prefix, body, spec);
      } else {
        out += format_integer(argument, spec);
      }
    } else if (std::string_view("eEfFgG").find(type) != std::string_view::npos) {
      if (argument.is_undefined()) throw_undefined(argument);
      if (!argument.is_number()) throw_type_error(fmt::format("must be real number, not {}", type_name(argument)));
      spec.type = type;
      align(true);
      out += format_real(argument.to_real(), spec);
    } else {
      value_error(fmt::format("unsupported format character '{}'", type));
    }
    in.charge_bytes(static_cast<size_t>(spec.width));
  }
  const bool all_used = used_mapping || (is_tuple ? used >= values.items().size()
                                                  : used > 0 || values.is_undefined() || values.is(Kind::kDict) ||
                                                        values.is(Kind::kList) || values.is(Kind::kRange));
  if (!all_used) throw_type_error("not all arguments converted during string formatting");
  return in.make_string(std::move(out), format.is_markup());
}

namespace {

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& in, CallArgs& args, bool is_markup) : in_(in), args_(args), is_markup_(is_markup) {}

  std::string format(std::string_view text, int depth) {
    if (depth < 0) value_error("Max string recursion exceeded");
    std::string out;
    for (size_t i = 0; i < text.size();) {
      const char c = text[i];
      if (c == '{' || c == '}') {
        if (i + 1 < text.size() && text[i + 1] == c) {
          out += c;
          i += 2;
          continue;
        }
        if (c == '}') value_error("Single '}' encountered in format string");
        i = field(text, i + 1, out, depth);
        continue;
      }
      out += c;
      ++i;
    }
    return out;
  }

 private:
  // the replacement field that starts at i (after its brace); returns the position after it
  size_t field(std::string_view text, size_t i, std::string& out, int depth) {
    if (i >= text.size()) value_error("Single '{' encountered in format string");
    int open = 1;
    size_t end = i;
    size_t name_end = std::string_view::npos;
    bool in_brackets = false;
    for (; end < text.size(); ++end) {
      const char c = text[end];
      if (name_end == std::string_view::npos && c == '[') in_brackets = true;
      if (c == ']') in_brackets = false;
      if (in_brackets) continue;
      if ((c == ':' || c == '!') && name_end == std::string_view::npos) name_end = end;
      if (c == '{') ++open;
      if (c == '}' && --open == 0) break;
    }
    if (end >= text.size()) value_error("expected '}' before end of string");
    name_end = std::min(name_end, end);
    Value v = lookup(text.substr(i, name_end - i));
    size_t k = name_end;
    if (k < end && text[k] == '!') {
      if (k + 1 >= end) value_error("unmatched '{' in format spec");
      const char conversion = text[k + 1];
      k += 2;
      if (k < end && text[k] != ':') value_error("expected ':' after conversion specifier");
      if (conversion == 'r')
        v = Value::string(in_.to_repr(v));
      else if (conversion == 's')
        v = Value::string(in_.to_text(v));
      else if (conversion == 'a')
        v = Value::string(ascii_repr(v));
      else
        value_error(fmt::format("Unknown conversion specifier '{}'", conversion));
    }
    std::string spec;
    if (k < end) spec = format(text.substr(k + 1, end - k - 1), depth - 1);
    std::string piece = format_spec(in_, v, spec);
    if (is_markup_ && !v.is_markup()) piece = escape_html(piece);
    in_.charge_bytes(piece.size());
    out += piece;
    return end + 1;
  }

  Value lookup(std::string_view name) {
    size_t i = 0;
    while (i < name.size() && name[i] != '.' && name[i] != '[') ++i;
    const std::string_view first = name.substr(0, i);
    Value v;
    const bool is_number = !first.empty() && first.find_first_not_of("0123456789") == std::string_view::npos;
    if (first.empty() || is_number) {
      if (first.empty() ? numbering_ == 2 : numbering_ == 1)
        value_error("cannot mix manual field specification and automatic field numbering");
      numbering_ = first.empty() ? 1 : 2;
      const size_t index = first.empty() ? next_++ : first.size() > 9 ? SIZE_MAX : std::stoul(std::string(first));
      if (index >= args_.positional.size())
        fail(ErrorCode::kInvalidInput, "Replacement index {} out of range for positional args tuple", index);
      v = args_.positional[index];
    } else {
      const Value* found = nullptr;
      for (const auto& [key, value] : args_.keyword)
        if (key == first) found = &value;
      if (!found) fail(ErrorCode::kInvalidInput, "KeyError: '{}'", first);
      v = *found;
    }
    while (i < name.size()) {
      if (name[i] == '.') {
        size_t end = i + 1;
        while (end < name.size() && name[end] != '.' && name[end] != '[') ++end;
        if (end == i + 1) value_error("Empty attribute in format string");
        v = in_.get_attribute(v, Value::string(std::string(name.substr(i + 1, end - i - 1))));
        i = end;
      } else if (name[i] == '[') {
        const size_t end = name.find(']', i);
        if (end == std::string_view::npos) value_error("Missing ']' in format string");
        const std::string_view key = name.substr(i + 1, end - i - 1);
        if (key.empty()) value_error("Empty attribute in format string");
        const bool is_index = key.find_first_not_of("0123456789") == std::string_view::npos && key.size() < 10;
        v = in_.get_item(v, is_index ? Value::integer(std::stol(std::string(key))) : Value::string(std::string(key)));
        i = end + 1;
      } else {
        value_error("Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return v;
  }

  Interpreter& in_;
  CallArgs& args_;
  bool is_markup_;
  int numbering_ = 0;  // 1: automatic, 2: manual
  size_t next_ = 0;
};

}  // namespace

Value format_braces(Interpreter& in, const Value& format, CallArgs& args) {
  BraceFormatter formatter(in, args, format.is_markup());
  return in.make_string(formatter.format(format.text(), 2), format.is_markup());
}

}  // namespace pmetal::text::jinja
