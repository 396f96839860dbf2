#include "data/chat_renderer.h"

#include <vector>

#include "text/template/json.h"

namespace pmetal::data {
namespace {

namespace chat = text::chat;
namespace jinja = text::jinja;

// indices of the assistant's messages
std::vector<int64_t> assistant_messages(const jinja::Value& messages) {
  std::vector<int64_t> out;
  for (size_t i = 0; i < messages.items().size(); ++i) {
    const jinja::Value& message = messages.items()[i];
    const jinja::Value* role = message.is(jinja::Kind::kDict) ? message.dict().find("role") : nullptr;
    if (role && role->is_string() && role->text() == "assistant") out.push_back(static_cast<int64_t>(i));
  }
  return out;
}

}  // namespace

RenderChat make_chat_renderer(std::shared_ptr<const chat::ChatTemplate> chat_template, TrainOn train_on,
                              const std::string& extra_json) {
  const jinja::Value extra = extra_json.empty() ? jinja::Value() : jinja::parse_json(extra_json);
  return [chat_template, train_on, extra](const std::string& messages_json, const std::string& tools_json) {
    const jinja::Value messages = jinja::parse_json(messages_json);
    chat::ChatOptions options;
    options.extra = extra;
    if (!tools_json.empty()) options.tools = jinja::parse_json(tools_json);
    RenderedChat out;
    if (train_on == TrainOn::kEverything) {
      out.text = chat_template->render(messages, options).text;
      return out;
    }
    const auto turns = assistant_messages(messages);
    const auto add = [&](const jinja::Span& span, int64_t message) {
      out.assistant.push_back({message, {static_cast<int64_t>(span.begin), static_cast<int64_t>(span.end)}});
    };
    auto last = [&] { return chat_template->render_for_training(messages, options, chat::TrainOn::kLast); };
    if (train_on == TrainOn::kLast) {
      chat::Trained trained = last();
      out.text = std::move(trained.text);
      for (const auto& span : trained.spans) add(span, turns.empty() ? 0 : turns.back());
      return out;
    }
    chat::Trained trained = chat_template->render_for_training(messages, options, chat::TrainOn::kAll);
    out.text = std::move(trained.text);
    if (trained.spans.size() == turns.size()) {
      for (size_t i = 0; i < turns.size(); ++i) add(trained.spans[i], turns[i]);
      return out;
    }
    // A template with {% generation %} may mark a turn in several pieces or not at all: what belongs to the last turn
    // is known, the rest counts to the first.
    const auto last_begin = turns.empty()          ? std::string::npos
                            : last().spans.empty() ? out.text.size()
                                                   : last().spans.front().begin;
    for (const auto& span : trained.spans)
      add(span, span.begin >= last_begin ? turns.back() : turns.empty() ? 0 : turns.front());
    return out;
  };
}

RenderChat make_prompt_renderer(std::shared_ptr<const chat::ChatTemplate> chat_template) {
  return [chat_template](const std::string& messages_json, const std::string& tools_json) {
    chat::ChatOptions options;
    options.add_generation_prompt = true;
    if (!tools_json.empty()) options.tools = jinja::parse_json(tools_json);
    RenderedChat out;
    out.text = chat_template->render(jinja::parse_json(messages_json), options).text;
    return out;
  };
}

}  // namespace pmetal::data
