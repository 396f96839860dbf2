// Joins a chat template to this folder's RenderChat: the one renderer of training, inference and serving.
#pragma once

#include <memory>
#include <string>

#include "data/example.h"
#include "text/chat/chat.h"

namespace pmetal::data {

// `train_on` as in the ExampleOptions it is used with: turns are looked for only where they matter. `extra_json`: an
// object of further template variables (enable_thinking, ...), or empty. Thread-safe.
RenderChat make_chat_renderer(std::shared_ptr<const text::chat::ChatTemplate> chat, TrainOn train_on = TrainOn::kAll,
                              const std::string& extra_json = {});
// Conversations as prompts: the text ends with the words that open the assistant's next turn, and no turn is marked.
RenderChat make_prompt_renderer(std::shared_ptr<const text::chat::ChatTemplate> chat);

}  // namespace pmetal::data
