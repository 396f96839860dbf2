#include "text/template/json.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/template/repr.h"
#include "text/template/unicode.h"

namespace pmetal::text::jinja {
namespace {

// Receives the parser's events; open containers stand on a stack.
class Builder {
 public:
  bool null() { return add(Value()); }
  bool boolean(bool b) { return add(Value::boolean(b)); }
  bool number_integer(int64_t i) { return add(Value::integer(i)); }
  bool number_unsigned(uint64_t u) {
    return add(u <= INT64_MAX ? Value::integer(static_cast<int64_t>(u)) : Value::big_integer(std::to_string(u)));
  }
  bool number_float(double d, const std::string& text) {
    const bool is_whole = text.find_first_of(".eE") == std::string::npos;
    return add(is_whole ? Value::big_integer(text) : Value::real(d));
  }
  bool string(std::string& s) { return add(Value::string(std::move(s))); }
  bool binary(std::vector<uint8_t>&) { return false; }
  bool start_object(size_t) { return open(true); }
  bool start_array(size_t) { return open(false); }
  bool key(std::string& k) {
    stack_.back().key = Value::string(std::move(k));
    return true;
  }
  bool end_object() {
    Value v = Value::dict(std::move(stack_.back().dict));
    stack_.pop_back();
    return add(std::move(v));
  }
  bool end_array() {
    Value v = Value::list(std::move(stack_.back().items));
    stack_.pop_back();
    return add(std::move(v));
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) {
    std::string what = e.what();
    const size_t detail = what.find("syntax error");
    if (detail != std::string::npos) what = what.substr(detail);
    fail(ErrorCode::kInvalidInput, "JSON: byte {}: {}", position, unicode::repaired(what));
  }
  Value result;

 private:
  struct Open {
    std::shared_ptr<DictObject> dict;
    std::vector<Value> items;
    Value key;
  };
  bool open(bool is_object) {
    if (static_cast<int>(stack_.size()) >= kMaxJsonDepth)
      fail(ErrorCode::kInvalidInput, "JSON: nested more than {} deep", kMaxJsonDepth);
    stack_.emplace_back();
    if (is_object) stack_.back().dict = std::make_shared<DictObject>();
    return true;
  }
  bool add(Value v) {
    if (stack_.empty())
      result = std::move(v);
    else if (stack_.back().dict)
      stack_.back().dict->set(stack_.back().key, std::move(v));
    else
      stack_.back().items.push_back(std::move(v));
    return true;
  }
  std::vector<Open> stack_;
};

class Writer {
 public:
  explicit Writer(const JsonStyle& style) : style_(style) {}

  void write(const Value& v) {
    switch (v.kind()) {
      case Kind::kNone: out += "null"; return;
      case Kind::kBool: out += v.as_bool() ? "true" : "false"; return;
      case Kind::kInt: out += fmt::format("{}", v.as_int()); return;
      case Kind::kBigInt: out += v.text(); return;
      case Kind::kFloat: out += number(v.as_real()); return;
      case Kind::kString: string(v.text()); return;
      case Kind::kList:
      case Kind::kTuple: list(v.items()); return;
      case Kind::kDict: dict(v.dict()); return;
      default: throw_type_error(fmt::format("Object of type {} is not JSON serializable", type_name(v)));
    }
  }
  std::string out;

 private:
  static std::string number(double d) {
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d > 0 ? "Infinity" : "-Infinity";
    return repr_float(d);
  }

  void line() {
    if (!style_.has_indent) return;
    out += '\n';
    for (int i = 0; i < depth_; ++i) out += style_.indent;
  }

  void list(const std::vector<Value>& items) {
    if (items.empty()) {
      out += "[]";
      return;
    }
    out += '[';
    ++depth_;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out += style_.item_separator;
      line();
      write(items[i]);
    }
    --depth_;
    line();
    out += ']';
  }

  static std::string key_text(const Value& key) {
    switch (key.kind()) {
      case Kind::kString: return key.text();
      case Kind::kNone: return "null";
      case Kind::kBool: return key.as_bool() ? "true" : "false";
      case Kind::kInt: return fmt::format("{}", key.as_int());
      case Kind::kBigInt: return key.text();
      case Kind::kFloat: return number(key.as_real());
      default: throw_type_error(fmt::format("keys must be str, int, float, bool or None, not {}", type_name(key)));
    }
  }

  void dict(const DictObject& dict) {
    if (dict.items.empty()) {
      out += "{}";
      return;
    }
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.items) entries.push_back(&entry);
    if (style_.sort_keys)
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto* a, const auto* b) { return compare(a->first, b->first, "<") == -1; });
    out += '{';
    ++depth_;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out += style_.item_separator;
      line();
      string(key_text(entries[i]->first));
      out += style_.key_separator;
      write(entries[i]->second);
    }
    --depth_;
    line();
    out += '}';
  }

  void escape_unit(uint32_t unit) { out += fmt::format("\\u{:04x}", unit); }

  void string(const std::string& s) {
    out += '"';
    for (size_t i = 0; i < s.size(); ++i) {
      const auto c = static_cast<unsigned char>(s[i]);
      switch (c) {
        case '"': out += "\\\""; continue;
        case '\\': out += "\\\\"; continue;
        case '\n': out += "\\n"; continue;
        case '\r': out += "\\r"; continue;
        case '\t': out += "\\t"; continue;
        case '\b': out += "\\b"; continue;
        case '\f': out += "\\f"; continue;
        default: break;
      }
      if (c < 0x20 || (c == 0x7f && style_.ensure_ascii)) {
        escape_unit(c);
      } else if (c < 0x80 || !style_.ensure_ascii) {
        out += s[i];
      } else {
        const char32_t code = unicode::decode(s, i);
        if (code >= 0x10000) {
          escape_unit(0xd800 + ((code - 0x10000) >> 10));
          escape_unit(0xdc00 + ((code - 0x10000) & 0x3ff));
        } else {
          escape_unit(code);
        }
        i += unicode::sequence_length(s, i) - 1;
      }
    }
    out += '"';
  }

  const JsonStyle& style_;
  int depth_ = 0;
};

}  // namespace

Value parse_json(std::string_view text) {
  Builder builder;
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.result;
}

std::string to_json(const Value& v, const JsonStyle& style) {
  Writer writer(style);
  writer.write(v);
  return std::move(writer.out);
}

}  // namespace pmetal::text::jinja
