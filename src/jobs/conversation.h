// A chat with a model: messages in, the prompt they make by the model's template out, and the reader of its answers.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "jobs/text_session.h"
#include "text/chat/output_parser.h"

namespace pmetal::jobs {

// The chat side of a model: messages to prompts, answers to content, reasoning and calls.
class ChatFormat {
 public:
  explicit ChatFormat(TextSession text);  // Error(kNotFound) when the model has no chat template

  struct Prompt {
    std::vector<int32_t> ids;
    std::unique_ptr<text::chat::OutputParser> parser;
  };
  // `messages`, `tools` and `extra` as the template gets them; the answer comes next
  Prompt prompt(const text::jinja::Value& messages, const text::jinja::Value& tools,
                const text::jinja::Value& extra) const;
  // the parser's markers are special tokens, so the answer must be decoded with them
  bool markers_are_special() const { return markers_are_special_; }
  bool template_knows_thinking() const;

 private:
  TextSession text_;
  const text::chat::ParserSpec* spec_;
  bool markers_are_special_ = false;
};

struct ConversationOptions {
  std::optional<std::string> system;
  std::optional<std::string> tools_file;  // JSON list of OpenAI function definitions
  bool thinking = true;
};

class Conversation {
 public:
  // Error(kInvalidInput) when the file of tools holds none
  Conversation(TextSession text, const ConversationOptions& options);

  void add_user(const std::string& content);
  void add_answer(const text::chat::ParsedOutput& answer);
  void take_back();  // the last message
  void reset();      // back to the system message
  ChatFormat::Prompt prompt() const;
  const ChatFormat& format() const { return format_; }

 private:
  ChatFormat format_;
  std::optional<std::string> system_;
  text::jinja::Value tools_, extra_;
  std::vector<text::jinja::Value> messages_;
};

}  // namespace pmetal::jobs
