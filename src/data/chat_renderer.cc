#include "data/chat_renderer.h"

#include "text/template/json.h"

namespace pmetal::data {

RenderChat make_chat_renderer(std::shared_ptr<const text::chat::ChatTemplate> chat) {
  return [chat](const std::string& messages_json, const std::string& tools_json) {
    const text::jinja::Value messages = text::jinja::parse_json(messages_json);
    text::chat::ChatOptions options;
    if (!tools_json.empty()) options.tools = text::jinja::parse_json(tools_json);
    const text::chat::Trained rendered = chat->render_for_training(messages, options, text::chat::TrainOn::kAll);
    RenderedChat out;
    out.text = rendered.text;
    for (size_t i = 0; i < rendered.spans.size(); ++i)
      out.assistant.push_back(
          {static_cast<int64_t>(i),
           {static_cast<int64_t>(rendered.spans[i].begin), static_cast<int64_t>(rendered.spans[i].end)}});
    return out;
  };
}

}  // namespace pmetal::data
