#include "jobs/conversation.h"

#include "base/file.h"
#include "text/template/json.h"

namespace pmetal::jobs {
namespace {

using text::jinja::DictObject;
using text::jinja::Kind;
using text::jinja::Value;

Value message(const char* role, const std::string& content) {
  auto m = std::make_shared<DictObject>();
  m->set("role", Value::string(role));
  m->set("content", Value::string(content));
  return Value::dict(std::move(m));
}

Value read_tools(const std::string& path) {
  Value tools;
  try {
    tools = text::jinja::parse_json(read_text(path));
  } catch (const Error& e) {
    fail(e.code(), "{}: {}", path, e.what());
  }
  if (!tools.is(Kind::kList) || tools.items().empty())
    fail(ErrorCode::kInvalidInput, "{}: expected a JSON list of tools, [{{\"type\": \"function\", \"function\": ...}}]",
         path);
  for (const Value& tool : tools.items())
    if (!tool.is(Kind::kDict))
      fail(ErrorCode::kInvalidInput, "{}: each tool must be an object with \"type\" and \"function\"", path);
  return tools;
}

}  // namespace

ChatFormat::ChatFormat(TextSession text) : text_(std::move(text)) {
  if (!text_.chat) fail(ErrorCode::kNotFound, "{}", text_.no_chat);
  const text::chat::ParserSpec* named =
      text_.chat->family() ? text::chat::find_parser(text_.chat->family()->parser) : nullptr;
  const text::chat::ParserSpec& taught = text::chat::parser_for_template(text_.chat->source());
  spec_ = named && taught.shape == text::chat::CallShape::kNone ? named : &taught;
  for (std::string_view marker : {spec_->reasoning_open, spec_->reasoning_close, spec_->opens[0], spec_->closes[0]})
    if (const auto id = marker.empty() ? std::nullopt : text_.tokenizer->token_to_id(marker))
      markers_are_special_ |= text_.tokenizer->is_special(*id);
  markers_are_special_ |= spec_->shape == text::chat::CallShape::kHarmony;
}

ChatFormat::Prompt ChatFormat::prompt(const Value& messages, const Value& tools, const Value& extra) const {
  const text::chat::Rendered rendered =
      text_.chat->render(messages, {.add_generation_prompt = true, .tools = tools, .extra = extra});
  Prompt p;
  p.ids = text_.tokenizer->encode_ids(rendered.text, false);
  p.parser = text::chat::make_parser(
      *spec_, {.tools = tools, .starts_in_reasoning = text::chat::prompt_opens_reasoning(*spec_, rendered.text)});
  return p;
}

bool ChatFormat::template_knows_thinking() const {
  return text_.chat->source().find("enable_thinking") != std::string::npos;
}

Conversation::Conversation(TextSession text, const ConversationOptions& options)
    : format_(std::move(text)), system_(options.system) {
  if (options.tools_file) tools_ = read_tools(*options.tools_file);
  if (!options.thinking) {
    auto extra = std::make_shared<DictObject>();
    extra->set("enable_thinking", Value::boolean(false));
    extra_ = Value::dict(std::move(extra));
  }
  reset();
}

void Conversation::reset() {
  messages_.clear();
  if (system_) messages_.push_back(message("system", *system_));
}

void Conversation::add_user(const std::string& content) { messages_.push_back(message("user", content)); }
void Conversation::take_back() { messages_.pop_back(); }

void Conversation::add_answer(const text::chat::ParsedOutput& answer) {
  const Value m = message("assistant", answer.content);
  auto dict = std::static_pointer_cast<DictObject>(m.handle());
  if (!answer.reasoning.empty()) dict->set("reasoning_content", Value::string(answer.reasoning));
  if (!answer.calls.empty()) {
    std::vector<Value> calls;
    for (const text::chat::ParsedCall& c : answer.calls) {
      auto function = std::make_shared<DictObject>();
      function->set("name", Value::string(c.name));
      function->set("arguments", text::jinja::parse_json(c.arguments));
      auto call = std::make_shared<DictObject>();
      call->set("id", Value::string(c.id));
      call->set("type", Value::string("function"));
      call->set("function", Value::dict(std::move(function)));
      calls.push_back(Value::dict(std::move(call)));
    }
    dict->set("tool_calls", Value::list(std::move(calls)));
  }
  messages_.push_back(m);
}

ChatFormat::Prompt Conversation::prompt() const { return format_.prompt(Value::list(messages_), tools_, extra_); }

}  // namespace pmetal::jobs
