// The text side of a model folder: tokenizer, chat template, and what turns rows of data into examples.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "data/example.h"
#include "models/model.h"
#include "text/chat/chat.h"
#include "text/tokenizer/tokenizer.h"

namespace pmetal::jobs {

struct TextSession {
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::shared_ptr<const text::chat::ChatTemplate> chat;  // null when the model has none:
  std::string no_chat;                                   // then this says why
  std::optional<int32_t> eos;
};

// Error(kNotFound) when the folder has no tokenizer; Error(kInvalidInput) when its ids exceed the model's vocabulary
TextSession open_text(const std::filesystem::path& folder, const models::ModelInfo& info);
// one user turn, ready for an answer
std::string chat_prompt(const TextSession& text, const std::string& question);
std::shared_ptr<data::ExampleBuilder> make_example_builder(const TextSession& text,
                                                           const data::ExampleOptions& options);

}  // namespace pmetal::jobs
