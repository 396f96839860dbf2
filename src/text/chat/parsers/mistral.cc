// Mistral: [TOOL_CALLS] before each name and [ARGS] before its arguments; older ones a JSON list.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_mistral;
const ParserSpec parser_mistral = {
    .name = "mistral",
    .shape = CallShape::kNamedJson,
    .reasoning_open = "[THINK]",
    .reasoning_close = "[/THINK]",
    .opens = {"[TOOL_CALLS]"},
    .name_close = "[ARGS]",
    .id_open = "[CALL_ID]",
};

}  // namespace pmetal::text::chat
