// Joins a chat template to this folder's RenderChat: what is learned in training is rendered by the code that renders
// prompts in inference.
#pragma once

#include <memory>

#include "data/example.h"
#include "text/chat/chat.h"

namespace pmetal::data {

RenderChat make_chat_renderer(std::shared_ptr<const text::chat::ChatTemplate> chat);

}  // namespace pmetal::data
