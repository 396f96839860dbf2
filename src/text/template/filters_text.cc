// Filters that take a string or a number.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>

#include "base/error.h"
#include "text/template/arguments.h"
#include "text/template/filters.h"
#include "text/template/format.h"
#include "text/template/interpreter.h"
#include "text/template/json.h"
#include "text/template/methods.h"
#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/unicode.h"

namespace pmetal::text::jinja {
namespace {

// str(v), where a string stays what it is
Value soft(Interpreter& in, const Value& v) { return v.is_string() ? v : in.make_string(in.to_text(v)); }

Value method(Interpreter& in, const Value& text, const char* name, std::vector<Value> positional = {}) {
  CallArgs args;
  args.positional = std::move(positional);
  return find_string_method(name)(in, text, args);
}

Value filter_upper(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("upper", args);
  return method(in, soft(in, v), "upper");
}
Value filter_lower(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("lower", args);
  return method(in, soft(in, v), "lower");
}
Value filter_capitalize(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("capitalize", args);
  return method(in, soft(in, v), "capitalize");
}

// capitals after whitespace, - ( { [ <
Value filter_title(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("title", args);
  const std::string text = in.to_text(v);
  in.charge(text.size());
  std::string out, word;
  const auto flush = [&] {
    if (word.empty()) return;
    const size_t n = unicode::sequence_length(word, 0);
    out += unicode::upper(std::string_view(word).substr(0, n)) + unicode::lower(std::string_view(word).substr(n));
    word.clear();
  };
  for (size_t i = 0; i < text.size(); i += unicode::sequence_length(text, i)) {
    const char32_t c = unicode::decode(text, i);
    if (c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || unicode::is_space(c)) {
      flush();
      unicode::append(out, c);
    } else {
      unicode::append(word, c);
    }
  }
  flush();
  return in.make_string(std::move(out));
}

Value filter_trim(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("trim", args, {"chars"});
  return method(in, soft(in, v), "strip", {bound.get(0, Value())});
}

Value filter_string(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("string", args);
  return soft(in, v);
}

Value filter_center(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("center", args, {"width"});
  return justified(in, soft(in, v), bound.integer(0, 80), " ", 0);
}

Value filter_replace(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("replace", args, {"old", "new", "count"}, 2);
  const int64_t count = bound.has(2) && !bound[2].is_none() ? to_index(bound[2]) : -1;
  return in.make_string(replace_text(in, in.to_text(v), in.to_text(bound[0]), in.to_text(bound[1]), count));
}

Value filter_format(Interpreter& in, const Value& v, CallArgs& args) {
  if (!args.positional.empty() && !args.keyword.empty())
    throw_type_error("can't handle positional and keyword arguments at the same time");
  const Value text = soft(in, v);
  if (args.keyword.empty()) return format_percent(in, text, Value::tuple(args.positional));
  auto dict = std::make_shared<DictObject>();
  for (const auto& [key, value] : args.keyword) dict->set(key, value);
  return format_percent(in, text, Value::dict(std::move(dict)));
}

void need_text(const Value& v, const char* filter) {
  if (v.is_undefined()) throw_undefined(v);
  if (!v.is_string()) throw_type_error(fmt::format("the {} filter needs a string, not {}", filter, type_name(v)));
}

Value filter_indent(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("indent", args, {"width", "first", "blank"});
  need_text(v, "indent");
  std::string indention;
  if (bound.has(0) && bound[0].is_string()) {
    indention = bound[0].text();
  } else {
    const int64_t width = bound.integer(0, 4);
    in.charge_bytes(static_cast<size_t>(std::max<int64_t>(width, 0)));
    indention.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  }
  const bool blank = bound.boolean(2, false);
  const std::vector<Value> lines = split_lines(in, v.text() + "\n", false);
  std::string out = bound.boolean(1, false) ? indention : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) {
      out += '\n';
      if (blank || !lines[i].text().empty()) {
        in.charge_bytes(indention.size());
        out += indention;
      }
    }
    out += lines[i].text();
  }
  return in.make_string(std::move(out), v.is_markup());
}

Value filter_truncate(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("truncate", args, {"length", "killwords", "end", "leeway"});
  const int64_t size = bound.integer(0, 255);
  const std::string end = bound.text(2, "...");
  const int64_t leeway = bound.has(3) && !bound[3].is_none() ? to_index(bound[3]) : 5;
  const int64_t end_size = unicode::count(end);
  if (size < end_size) fail(ErrorCode::kInvalidInput, "expected length >= {}, got {}", end_size, size);
  if (leeway < 0) fail(ErrorCode::kInvalidInput, "expected leeway >= 0, got {}", leeway);
  if (length(in, v) <= size + leeway) return v;
  need_text(v, "truncate");
  const std::string cut = v.text().substr(0, unicode::offset(v.text(), size - end_size));
  if (bound.boolean(1, false)) return in.make_string(cut + end);
  const size_t space = cut.rfind(' ');
  return in.make_string(cut.substr(0, space) + end);
}

Value filter_wordcount(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("wordcount", args);
  const std::string text = in.to_text(v);
  in.charge(text.size() / 8);
  int64_t n = 0;
  bool in_word = false;
  for (size_t i = 0; i < text.size(); i += unicode::sequence_length(text, i)) {
    const bool is_word = unicode::is_word(unicode::decode(text, i));
    n += is_word && !in_word;
    in_word = is_word;
  }
  return Value::integer(n);
}

// a Python int literal with optional sign, underscores and whitespace; base 0 … 36
std::optional<Value> parse_int(std::string_view text, int64_t base) {
  if (base != 0 && (base < 2 || base > 36)) return std::nullopt;
  text = unicode::strip(text, nullptr, true, true);
  bool is_negative = false;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    is_negative = text[0] == '-';
    text.remove_prefix(1);
  }
  bool after_prefix = false;
  if (text.size() > 1 && text[0] == '0') {
    const char mark = static_cast<char>(text[1] | 32);
    const int64_t wanted = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : -1;
    if (wanted > 0 && (base == wanted || base == 0)) {
      base = wanted;
      text.remove_prefix(2);
      after_prefix = true;
    } else if (base == 0 && text.find_first_not_of("0_") != std::string_view::npos) {
      return std::nullopt;
    }
  }
  if (base == 0) base = 10;
  std::string digits;
  bool previous_is_digit = after_prefix;
  for (size_t i = 0; i < text.size(); i += unicode::sequence_length(text, i)) {
    const char32_t c = unicode::decode(text, i);
    if (c == '_') {
      if (!previous_is_digit) return std::nullopt;
      previous_is_digit = false;
      continue;
    }
    const int decimal = unicode::decimal_value(c);
    const int value = decimal >= 0                                     ? decimal
                      : c < 0x80 && (c | 32) >= 'a' && (c | 32) <= 'z' ? static_cast<int>((c | 32) - 'a') + 10
                                                                       : 99;
    if (value >= base) return std::nullopt;
    digits.push_back(static_cast<char>(value < 10 ? '0' + value : 'a' + value - 10));
    previous_is_digit = true;
  }
  if (digits.empty() || !previous_is_digit) return std::nullopt;
  int64_t value = 0;
  const std::string signed_digits = (is_negative ? "-" : "") + digits;
  const auto [_, code] =
      std::from_chars(signed_digits.data(), signed_digits.data() + signed_digits.size(), value, static_cast<int>(base));
  if (code == std::errc()) return Value::integer(value);
  if (base != 10) fail(ErrorCode::kInvalidInput, "integer {} does not fit in 64 bits", signed_digits);
  const size_t first = digits.find_first_not_of('0');
  return Value::big_integer((is_negative ? "-" : "") + digits.substr(first));
}

std::optional<double> parse_float(std::string_view text) {
  text = unicode::strip(text, nullptr, true, true);
  std::string plain;
  for (size_t i = 0; i < text.size(); i += unicode::sequence_length(text, i)) {
    const char32_t c = unicode::decode(text, i);
    const int digit = unicode::decimal_value(c);
    if (c == '_') {
      const bool between = i > 0 && i + 1 < text.size() && std::isdigit(static_cast<unsigned char>(text[i - 1])) &&
                           std::isdigit(static_cast<unsigned char>(text[i + 1]));
      if (!between) return std::nullopt;
    } else if (digit >= 0) {
      plain.push_back(static_cast<char>('0' + digit));
    } else if (c < 0x80) {
      plain.push_back(static_cast<char>(c));
    } else {
      return std::nullopt;
    }
  }
  std::string_view body = plain;
  const bool has_sign = !body.empty() && (body[0] == '+' || body[0] == '-');
  if (has_sign) body.remove_prefix(1);
  const std::string word = unicode::lower(body);
  if (word == "inf" || word == "infinity") return plain[0] == '-' ? -INFINITY : INFINITY;
  if (word == "nan") return NAN;
  if (body.empty() || !(std::isdigit(static_cast<unsigned char>(body[0])) || body[0] == '.')) return std::nullopt;
  if (body.find_first_not_of("0123456789.eE+-") != std::string_view::npos) return std::nullopt;
  double value = 0;
  const auto [end, code] = std::from_chars(body.data(), body.data() + body.size(), value);
  if (end != body.data() + body.size()) return std::nullopt;
  if (code == std::errc::result_out_of_range) value = std::strtod(std::string(body).c_str(), nullptr);
  return has_sign && plain[0] == '-' ? -value : value;
}

std::optional<Value> int_of_float(double d) {
  if (std::isnan(d) || std::isinf(d)) return std::nullopt;
  d = std::trunc(d);
  if (std::abs(d) < 9.2e18) return Value::integer(static_cast<int64_t>(d));
  return Value::big_integer(fmt::format("{:.0f}", d));
}

Value filter_int(Interpreter&, const Value& v, CallArgs& args) {
  const Bound bound("int", args, {"default", "base"});
  const Value fallback = bound.get(0, Value::integer(0));
  if (v.is_undefined()) throw_undefined(v);
  if (v.is_integral()) return Value::integer(v.as_int());
  if (v.is(Kind::kBigInt)) return v;
  if (v.is(Kind::kFloat)) return int_of_float(v.as_real()).value_or(fallback);
  if (!v.is_string()) return fallback;
  if (auto parsed = parse_int(v.text(), bound.integer(1, 10))) return *parsed;
  if (const auto real = parse_float(v.text())) return int_of_float(*real).value_or(fallback);
  return fallback;
}

Value filter_float(Interpreter&, const Value& v, CallArgs& args) {
  const Bound bound("float", args, {"default"});
  const Value fallback = bound.get(0, Value::real(0));
  if (v.is_undefined()) throw_undefined(v);
  if (v.is_number()) return Value::real(v.to_real());
  if (!v.is_string()) return fallback;
  const auto parsed = parse_float(v.text());
  return parsed ? Value::real(*parsed) : fallback;
}

Value filter_abs(Interpreter&, const Value& v, CallArgs& args) {
  refuse_arguments("abs", args);
  if (v.is_undefined()) throw_type_error("bad operand type for abs(): 'Undefined'");
  if (!v.is_number()) throw_type_error(fmt::format("bad operand type for abs(): '{}'", type_name(v)));
  if (v.is(Kind::kFloat)) return Value::real(std::abs(v.as_real()));
  if (v.is(Kind::kBigInt)) return v.text()[0] == '-' ? negate(v) : v;
  return v.as_int() < 0 ? negate(v) : Value::integer(v.as_int());
}

// Python's round(): correctly rounded decimal, halves to even
Value round_common(const Value& v, int64_t precision) {
  if (v.is(Kind::kFloat)) {
    const double d = v.as_real();
    if (!std::isfinite(d) || precision > 323) return v;
    if (precision >= 0) {
      const int size = std::snprintf(nullptr, 0, "%.*f", static_cast<int>(precision), d);
      std::string text(static_cast<size_t>(size) + 1, '\0');
      std::snprintf(text.data(), text.size(), "%.*f", static_cast<int>(precision), d);
      return Value::real(std::strtod(text.c_str(), nullptr));
    }
    if (precision < -308) return Value::real(std::copysign(0.0, d));
    const double scale = std::pow(10.0, static_cast<double>(-precision));
    return Value::real(std::nearbyint(d / scale) * scale);
  }
  if (precision >= 0) return Value::integer(v.as_int());
  if (precision < -18) return Value::integer(0);
  int64_t scale = 1;
  for (int64_t i = precision; i < 0; ++i) scale *= 10;
  const int64_t low = floor_divide(v.as_int(), scale), rest = floor_modulo(v.as_int(), scale);
  const bool up = rest > scale - rest || (rest == scale - rest && low % 2 != 0);
  int64_t result = 0;
  if (__builtin_mul_overflow(low + up, scale, &result)) fail(ErrorCode::kInvalidInput, "integer overflow in round");
  return Value::integer(result);
}

Value filter_round(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("round", args, {"precision", "method"});
  const int64_t precision = bound.integer(0, 0);
  const std::string method_name = bound.text(1, "common");
  if (method_name != "common" && method_name != "ceil" && method_name != "floor")
    fail(ErrorCode::kInvalidInput, "method must be common, ceil or floor");
  if (v.is_undefined() || !v.is_number() || v.is(Kind::kBigInt))
    throw_type_error(fmt::format("type {} doesn't define __round__ method", type_name(v)));
  if (method_name == "common") return round_common(v, precision);
  const Value scale = binary(in, Op::kPow, Value::integer(10), Value::integer(precision));
  const Value scaled = binary(in, Op::kMul, v, scale);
  if (scaled.is_integral()) return binary(in, Op::kDiv, scaled, scale);
  const double whole = method_name == "ceil" ? std::ceil(scaled.as_real()) : std::floor(scaled.as_real());
  const auto integer = int_of_float(whole);
  if (!integer) fail(ErrorCode::kInvalidInput, "cannot convert this float to an integer");
  return Value::real(whole / scale.to_real());
}

Value filter_filesizeformat(Interpreter&, const Value& v, CallArgs& args) {
  const Bound bound("filesizeformat", args, {"binary"});
  const bool is_binary = bound.boolean(0, false);
  if (v.is_undefined()) throw_undefined(v);
  double bytes = 0;
  if (v.is_number()) {
    bytes = v.to_real();
  } else {
    const auto parsed = v.is_string() ? parse_float(v.text()) : std::nullopt;
    if (!parsed) throw_type_error("could not convert the value to float");
    bytes = *parsed;
  }
  const double base = is_binary ? 1024 : 1000;
  if (bytes == 1) return Value::string("1 Byte");
  if (bytes < base) return Value::string(fmt::format("{} Bytes", static_cast<int64_t>(bytes)));
  constexpr const char* kBinary[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"};
  constexpr const char* kDecimal[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"};
  double unit = base;
  for (int i = 0;; ++i) {
    unit *= base;
    if (bytes < unit || i == 7)
      return Value::string(fmt::format("{:.1f} {}", base * bytes / unit, is_binary ? kBinary[i] : kDecimal[i]));
  }
}

Value filter_default(Interpreter&, const Value& v, CallArgs& args) {
  const Bound bound("default", args, {"default_value", "boolean"});
  if (v.is_undefined() || (bound.boolean(1, false) && !truth(v))) return bound.get(0, Value::string(""));
  return v;
}

Value filter_tojson(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = bound.boolean(0, false);
  style.sort_keys = bound.boolean(3, false);
  if (bound.has(1) && !bound[1].is_none()) {
    style.has_indent = true;
    if (bound[1].is_string()) {
      style.indent = bound[1].text();
    } else {
      const int64_t width = std::min<int64_t>(std::max<int64_t>(to_index(bound[1]), 0), 1000);
      style.indent.assign(static_cast<size_t>(width), ' ');
    }
    style.item_separator = ",";
  }
  if (bound.has(2) && !bound[2].is_none()) {
    const std::vector<Value> separators = to_vector(in, bound[2]);
    if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string())
      throw_type_error("tojson: separators must be two strings, (item, key)");
    style.item_separator = separators[0].text();
    style.key_separator = separators[1].text();
  }
  in.charge_walk(v);
  in.charge_bytes(static_cast<size_t>(v.weight()) * (style.indent.size() + style.item_separator.size()));
  return in.make_string(to_json(v, style));
}

constexpr FilterEntry kFilters[] = {{"trim", filter_trim},
                                    {"tojson", filter_tojson},
                                    {"upper", filter_upper},
                                    {"lower", filter_lower},
                                    {"capitalize", filter_capitalize},
                                    {"title", filter_title},
                                    {"string", filter_string},
                                    {"center", filter_center},
                                    {"replace", filter_replace},
                                    {"format", filter_format},
                                    {"indent", filter_indent},
                                    {"truncate", filter_truncate},
                                    {"wordcount", filter_wordcount},
                                    {"int", filter_int},
                                    {"float", filter_float},
                                    {"abs", filter_abs},
                                    {"round", filter_round},
                                    {"filesizeformat", filter_filesizeformat},
                                    {"default", filter_default},
                                    {"d", filter_default}};

}  // namespace

FilterTable text_filters() { return {std::begin(kFilters), std::end(kFilters)}; }

}  // namespace pmetal::text::jinja
