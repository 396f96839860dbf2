#include "text/template/repr.h"

#include <charconv>
#include <cmath>

#include "base/error.h"
#include "text/template/unicode.h"

namespace pmetal::text::jinja {
namespace {

constexpr int kMaxReprDepth = 500;  // only namespaces that contain themselves get there

void append_repr(std::string& out, const Value& v, int depth);

void append_items(std::string& out, const std::vector<Value>& items, int depth) {
  bool is_first = true;
  for (const Value& item : items) {
    if (!std::exchange(is_first, false)) out += ", ";
    append_repr(out, item, depth);
  }
}

void append_dict(std::string& out, const DictObject& dict, int depth) {
  out += '{';
  bool is_first = true;
  for (const auto& [key, value] : dict.items) {
    if (!std::exchange(is_first, false)) out += ", ";
    append_repr(out, key, depth);
    out += ": ";
    append_repr(out, value, depth);
  }
  out += '}';
}

void append_view(std::string& out, const DictViewObject& view, int depth) {
  out += view.which == DictViewObject::kKeys     ? "dict_keys(["
         : view.which == DictViewObject::kValues ? "dict_values(["
                                                 : "dict_items([";
  bool is_first = true;
  for (const auto& [key, value] : view.dict.dict().items) {
    if (!std::exchange(is_first, false)) out += ", ";
    if (view.which == DictViewObject::kItems) out += '(';
    if (view.which != DictViewObject::kValues) append_repr(out, key, depth);
    if (view.which == DictViewObject::kItems) out += ", ";
    if (view.which != DictViewObject::kKeys) append_repr(out, value, depth);
    if (view.which == DictViewObject::kItems) out += ')';
  }
  out += "])";
}

void append_repr(std::string& out, const Value& v, int depth) {
  if (++depth > kMaxReprDepth) fail(ErrorCode::kInvalidInput, "a value that contains itself cannot be printed");
  switch (v.kind()) {
    case Kind::kUndefined: out += "Undefined"; return;
    case Kind::kNone: out += "None"; return;
    case Kind::kBool: out += v.as_bool() ? "True" : "False"; return;
    case Kind::kInt: out += fmt::format("{}", v.as_int()); return;
    case Kind::kBigInt: out += v.text(); return;
    case Kind::kFloat: out += repr_float(v.as_real()); return;
    case Kind::kString:
      if (v.is_markup()) out += "Markup(";
      out += repr_string(v.text());
      if (v.is_markup()) out += ")";
      return;
    case Kind::kList:
      out += '[';
      append_items(out, v.items(), depth);
      out += ']';
      return;
    case Kind::kTuple:
      out += '(';
      append_items(out, v.items(), depth);
      out += v.items().size() == 1 ? ",)" : ")";
      return;
    case Kind::kDict: append_dict(out, v.dict(), depth); return;
    case Kind::kDictView: append_view(out, v.view(), depth); return;
    case Kind::kRange: {
      const RangeObject& r = v.range();
      out += r.step == 1 ? fmt::format("range({}, {})", r.start, r.stop)
                         : fmt::format("range({}, {}, {})", r.start, r.stop, r.step);
      return;
    }
    case Kind::kNamespace:
      out += "<Namespace ";
      append_dict(out, v.dict(), depth);
      out += '>';
      return;
    case Kind::kIterator: out += "<generator object>"; return;
    case Kind::kObject: out += v.object().repr(); return;
  }
}

}  // namespace

std::string repr_float(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto scientific = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(scientific.ptr - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), text.data() + text.size(), exponent);
  if (exponent >= -4 && exponent < 16) {
    const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::fixed);
    std::string out(buffer, fixed.ptr);
    if (out.find('.') == std::string::npos) out += ".0";
    return out;
  }
  return std::string(text);
}

std::string repr_string(std::string_view s) {
  const char quote = s.find('\'') != std::string_view::npos && s.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t i = 0; i < s.size();) {
    const size_t n = unicode::sequence_length(s, i);
    const char32_t c = unicode::decode(s, i);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += s[i];
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (unicode::is_printable(c)) {
      out.append(s.substr(i, n));
    } else if (c <= 0xff) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    } else if (c <= 0xffff) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
    i += n;
  }
  out += quote;
  return out;
}

std::string repr(const Value& v) {
  std::string out;
  append_repr(out, v, 0);
  return out;
}

std::string str(const Value& v) {
  if (v.is_string()) return v.text();
  if (v.is_undefined()) return "";
  return repr(v);
}

}  // namespace pmetal::text::jinja
