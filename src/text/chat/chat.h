// Conversations → text, with the template a model brings or the built-in one of its family. Training, inference and
// serving all render through here, so an adapter meets the same format everywhere.
//
// Conversations are template values (text/template/json.h reads them from JSON): `messages` is a list of
// {role, content, tool_calls?, tool_call_id?, name?, reasoning_content? …}; what a template does not know passes by it.
// Errors: Error(kInvalidInput) naming the template, its line and what it said.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/chat/family.h"
#include "text/template/template.h"

namespace pmetal::text::chat {

using jinja::DateTime;
using jinja::Rendered;
using jinja::Span;
using jinja::Value;

struct ChatOptions {
  bool add_generation_prompt = false;
  // the final message is left open for the model to go on with: the field that it continues, as a rule "content";
  // empty = off. Not together with add_generation_prompt.
  std::string continue_final_message = {};
  Value tools = {};                // list of OpenAI function definitions; None: the template sees none
  Value documents = {};            // list of {title, text}; None likewise
  Value extra = {};                // dict of further variables (enable_thinking, reasoning_effort …) or None
  std::string template_name = {};  // one of several the model has ("tool_use" …); empty: chosen as transformers does
  std::optional<DateTime> now = {};  // default: PMETAL_CHAT_TEMPLATE_FROZEN_DATE, else the clock
};

enum class TrainOn { kLast, kAll, kEverything };  // last assistant turn, all of them, every token

struct Trained {
  std::string text;
  std::vector<Span> spans;  // bytes whose tokens carry loss: assistant text with its end-of-turn marker, in order
};

class ChatTemplate {
 public:
  // chat_template.jinja and additional_chat_templates/, else chat_template of tokenizer_config.json (a string or a list
  // of {name, template}), else chat_template.json, else the built-in family that config.json and the name tell.
  static ChatTemplate from_model_dir(const std::filesystem::path& dir);
  static ChatTemplate from_file(const std::filesystem::path& path);  // a .jinja file
  // `special_tokens`: dict bos_token, eos_token … → text
  static ChatTemplate from_source(std::string_view source, const std::string& name, const Value& special_tokens);
  static ChatTemplate built_in(std::string_view family);

  Rendered render(const Value& messages, const ChatOptions& options) const;

  // The conversation with what is to be learned marked. {% generation %} blocks are followed where the template has
  // them. Otherwise an assistant turn runs from where the generation prompt of the messages before it ends to where
  // the messages up to it end. Templates that rewrite earlier turns (reasoning left out of history) break that rule;
  // then the turn is found by rendering once more with its text replaced. What neither finds is an error.
  Trained render_for_training(const Value& messages, const ChatOptions& options, TrainOn train_on) const;

  const Family* family() const { return family_; }  // the format it writes; nullptr when unknown
  bool has_generation() const;
  std::vector<std::string> names() const;                  // of the templates held
  std::string special_token(std::string_view name) const;  // "" when the model has none
  const std::string& source() const { return sources_[0].second; }
  void set_special_tokens(const Value& special_tokens);  // replaces those known by the same name

 private:
  void add(const std::string& name, const std::string& source, const std::string& shown_name);
  const jinja::Template& choose(const ChatOptions& options) const;
  Rendered render_plain(const Value& messages, const ChatOptions& options) const;
  std::optional<Span> assistant_span(const Value& messages, size_t i, const std::string& full,
                                     const ChatOptions& options) const;

  std::string origin_;  // for messages
  std::vector<std::pair<std::string, std::string>> sources_;
  std::vector<jinja::Template> templates_;
  Value special_tokens_;
  const Family* family_ = nullptr;
};

}  // namespace pmetal::text::chat
