#include "text/chat/render_lines.h"

#include "base/error.h"
#include "text/template/json.h"
#include "text/template/unicode.h"

namespace pmetal::text::chat {
namespace {

using jinja::Kind;

std::string render(const ChatTemplate& chat, std::string_view line) {
  const Value request = jinja::parse_json(line);
  if (!request.is(Kind::kDict)) fail(ErrorCode::kInvalidInput, "a line must be a JSON object with \"messages\"");
  const auto field = [&](std::string_view name) {
    const Value* v = request.dict().find(name);
    return v ? *v : Value();
  };
  const Value messages = field("messages");
  if (messages.is_none()) fail(ErrorCode::kInvalidInput, "\"messages\" is missing");
  ChatOptions options;
  options.add_generation_prompt = jinja::truth(field("add_generation_prompt"));
  const Value continued = field("continue_final_message");
  if (continued.is_string())
    options.continue_final_message = continued.text();
  else if (jinja::truth(continued))
    options.continue_final_message = "content";
  options.tools = field("tools");
  options.documents = field("documents");
  options.extra = field("extra");
  if (const Value now = field("now"); !now.is_none()) {
    if (!now.is_string()) fail(ErrorCode::kInvalidInput, "\"now\" must be a date as text");
    options.now = DateTime::parse(now.text());
  }
  const Value special_tokens = field("special_tokens");
  if (special_tokens.is_none()) return chat.render(messages, options).text;
  if (!special_tokens.is(Kind::kDict)) fail(ErrorCode::kInvalidInput, "\"special_tokens\" must be an object");
  ChatTemplate adjusted = chat;
  adjusted.set_special_tokens(special_tokens);
  return adjusted.render(messages, options).text;
}

}  // namespace

std::string error_line(const Error& error) {
  auto answer = std::make_shared<jinja::DictObject>();
  const auto* of_template = dynamic_cast<const jinja::TemplateError*>(&error);
  answer->set("error", Value::string(jinja::unicode::repaired(of_template ? of_template->cause() : error.what())));
  if (of_template) answer->set("line", Value::integer(of_template->line()));
  return jinja::to_json(Value::dict(answer));
}

std::string render_line(const ChatTemplate& chat, std::string_view line) {
  try {
    auto answer = std::make_shared<jinja::DictObject>();
    answer->set("text", Value::string(render(chat, line)));
    return jinja::to_json(Value::dict(answer));
  } catch (const Error& e) {
    return error_line(e);
  }
}

}  // namespace pmetal::text::chat
