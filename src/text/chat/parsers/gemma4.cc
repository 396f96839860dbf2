// Gemma 4: call:name{…} with quote tokens; reasoning in a thought channel.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_gemma4;
const ParserSpec parser_gemma4 = {
    .name = "gemma4",
    .shape = CallShape::kGemma,
    .reasoning_open = "<|channel>thought\n",
    .reasoning_close = "<channel|>",
    .opens = {"<|tool_call>"},
    .closes = {"<tool_call|>"},
};

}  // namespace pmetal::text::chat
