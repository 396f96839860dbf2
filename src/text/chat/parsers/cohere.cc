// Cohere: a JSON list between action markers.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_cohere;
const ParserSpec parser_cohere = {
    .name = "cohere",
    .shape = CallShape::kJson,
    .reasoning_open = "<|START_THINKING|>",
    .reasoning_close = "<|END_THINKING|>",
    .opens = {"<|START_ACTION|>"},
    .closes = {"<|END_ACTION|>"},
    .name_key = "tool_name",
    .arguments_key = "parameters",
};

}  // namespace pmetal::text::chat
