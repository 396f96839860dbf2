// Phi-4-mini: functools and a JSON list.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_functools;
const ParserSpec parser_functools = {
    .name = "functools",
    .shape = CallShape::kJson,
    .opens = {"functools", "<|tool_call|>"},
    .closes = {"<|/tool_call|>"},
};

}  // namespace pmetal::text::chat
