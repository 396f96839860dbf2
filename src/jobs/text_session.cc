#include "jobs/text_session.h"

#include <nlohmann/json.hpp>

#include "data/chat_renderer.h"
#include "data/text_encoder.h"
#include "text/template/json.h"

namespace pmetal::jobs {

TextSession open_text(const std::filesystem::path& folder, const models::ModelInfo& info) {
  if (folder.empty())
    fail(ErrorCode::kUsage,
         "random: weights bring no tokenizer; give a model folder, or write one with `pmetal init --random-model`");
  TextSession s;
  s.tokenizer = text::Tokenizer::from_dir(folder);
  if (s.tokenizer->vocab_size() > info.vocabulary)
    fail(ErrorCode::kInvalidInput, "{}: the tokenizer has {} entries, the model {}; they do not belong together",
         folder.string(), s.tokenizer->vocab_size(), info.vocabulary);
  try {
    s.chat = std::make_shared<text::chat::ChatTemplate>(text::chat::ChatTemplate::from_model_dir(folder));
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kNotFound) throw;
    s.no_chat = e.what();  // plain text needs none
  }
  const std::string eos = s.chat ? s.chat->special_token("eos_token") : "";
  if (!eos.empty()) s.eos = s.tokenizer->token_to_id(eos);
  if (!s.eos && !info.eos.empty()) s.eos = info.eos[0];
  return s;
}

std::string chat_prompt(const TextSession& text, const std::string& question) {
  if (!text.chat) fail(ErrorCode::kNotFound, "{}", text.no_chat);
  const nlohmann::ordered_json messages = {{{"role", "user"}, {"content", question}}};
  text::chat::ChatOptions options;
  options.add_generation_prompt = true;
  return text.chat->render(text::jinja::parse_json(messages.dump()), options).text;
}

std::shared_ptr<data::ExampleBuilder> make_example_builder(const TextSession& text,
                                                           const data::ExampleOptions& options) {
  return std::make_shared<data::ExampleBuilder>(
      data::make_encoder(text.tokenizer, text.eos),
      text.chat ? data::make_chat_renderer(text.chat, options.train_on) : data::RenderChat(), options);
}

}  // namespace pmetal::jobs
