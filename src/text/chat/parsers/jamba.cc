// Jamba: a JSON list between tags.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_jamba;
const ParserSpec parser_jamba = {
    .name = "jamba",
    .shape = CallShape::kJson,
    .opens = {"<tool_calls>"},
    .closes = {"</tool_calls>"},
};

}  // namespace pmetal::text::chat
