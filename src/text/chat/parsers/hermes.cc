// Hermes, Qwen 2.5 and 3, Granite 4: JSON between tags, repeated.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_hermes;
const ParserSpec parser_hermes = {
    .name = "hermes",
    .shape = CallShape::kJson,
    .opens = {"<tool_call>"},
    .closes = {"</tool_call>"},
};

}  // namespace pmetal::text::chat
