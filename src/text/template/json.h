// JSON ⇄ template values. Key order and whole numbers of any size survive; a repeated key keeps its last value, as in
// Python.
#pragma once

#include <string>
#include <string_view>

#include "text/template/value.h"

namespace pmetal::text::jinja {

constexpr int kMaxJsonDepth = 200;

Value parse_json(std::string_view text);  // throws pmetal::Error(kInvalidInput) with the byte position

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool has_indent = false;
  std::string indent;                 // one level
  std::string item_separator = ", ";  // json.dumps: "," when indented, unless given
  std::string key_separator = ": ";
};
// json.dumps; TypeError for what JSON cannot hold (Undefined, iterators, namespaces …)
std::string to_json(const Value& v, const JsonStyle& style);
inline std::string to_json(const Value& v) { return to_json(v, JsonStyle()); }

}  // namespace pmetal::text::jinja
