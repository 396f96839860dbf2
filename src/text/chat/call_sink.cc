#include "base/error.h"
#include "text/chat/call_reader.h"
#include "text/template/json.h"
#include "text/template/unicode.h"

namespace pmetal::text::chat {

using jinja::Kind;
using jinja::Value;

const Value* CallSink::parameters(std::string_view name) const {
  static const Value none;
  if (!options_.tools.is(Kind::kList)) return nullptr;
  for (const Value& tool : options_.tools.items()) {
    if (!tool.is(Kind::kDict)) continue;
    const Value* function = tool.dict().find("function");
    const Value& definition = function && function->is(Kind::kDict) ? *function : tool;
    const Value* known = definition.dict().find("name");
    if (!known || !known->is_string() || known->text() != name) continue;
    const Value* schema = definition.dict().find("parameters");
    if (!schema) schema = definition.dict().find("input_schema");
    return schema ? schema : &none;
  }
  return nullptr;
}

void CallSink::start(std::string_view name, std::string id) {
  if (id.empty()) id = options_.make_id ? options_.make_id() : fmt::format("call_{:024x}", next_);
  is_open_ = true;
  out_->push_back({OutputEvent::kToolStart, "", next_++, std::move(id), std::string(name)});
}

void CallSink::arguments(std::string_view text) {
  if (text.empty()) return;
  if (!out_->empty() && out_->back().kind == OutputEvent::kToolArguments)
    out_->back().text += text;
  else
    out_->push_back({OutputEvent::kToolArguments, std::string(text), next_ - 1, "", ""});
}

void CallSink::end() {
  is_open_ = false;
  out_->push_back({OutputEvent::kToolEnd, "", next_ - 1, "", ""});
}

std::string CallSink::typed(std::string_view tool, std::string_view key, const std::string& text) const {
  std::vector<std::string> types;
  const Value* schema = parameters(tool);
  const auto member = [](const Value* v, std::string_view name) -> const Value* {
    return v && v->is(Kind::kDict) ? v->dict().find(name) : nullptr;
  };
  const auto add_types = [&](const Value* from) {
    const Value* type = member(from, "type");
    if (type && type->is_string()) types.push_back(type->text());
    if (type && type->is(Kind::kList))
      for (const Value& t : type->items())
        if (t.is_string()) types.push_back(t.text());
  };
  const Value* property = member(member(schema, "properties"), key);
  add_types(property);
  for (const char* choice : {"anyOf", "oneOf"})
    if (const Value* options = member(property, choice); options && options->is(Kind::kList))
      for (const Value& option : options->items()) add_types(&option);
  bool may_be_string = types.empty(), may_be_other = types.empty();
  for (const std::string& type : types) (type == "string" ? may_be_string : may_be_other) = true;
  // without a schema only what is plainly a list or an object is read as one
  const std::string_view bare = jinja::unicode::strip(text, nullptr, true, true);
  if (types.empty()) may_be_other = property == nullptr ? bare.starts_with('{') || bare.starts_with('[') : true;
  if (may_be_other) {
    std::string candidate(bare);
    if (candidate == "True" || candidate == "False") candidate[0] = static_cast<char>(candidate[0] + 32);
    if (candidate == "None") candidate = "null";
    try {
      const Value v = jinja::parse_json(candidate);
      if (!(v.is_string() && may_be_string)) return jinja::to_json(v);
    } catch (const Error&) {
      // not JSON: it stays text
    }
  }
  return jinja::to_json(Value::string(text));
}

int LiteralMatcher::push(char c, std::initializer_list<std::string_view> literals) {
  if (text_.empty() && (c == ' ' || c == '\n' || c == '\r' || c == '\t')) {
    for (const std::string_view literal : literals)
      if (literal.starts_with(c)) {  // a literal that begins with white space takes it
        text_ += c;
        return kMore;
      }
    return kMore;
  }
  text_ += c;
  while (true) {
    bool is_prefix = false;
    int i = 0;
    for (const std::string_view literal : literals) {
      if (!literal.empty() && literal == text_) {
        text_.clear();
        return i;
      }
      is_prefix |= literal.size() > text_.size() && literal.starts_with(text_);
      ++i;
    }
    if (is_prefix) return kMore;
    // white space that was taken for the start of a literal is only white space
    if (text_.size() > 1 && (text_[0] == ' ' || text_[0] == '\n')) {
      text_.erase(0, 1);
      continue;
    }
    return kMismatch;
  }
}

}  // namespace pmetal::text::chat
