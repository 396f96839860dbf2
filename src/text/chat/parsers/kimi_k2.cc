// Kimi K2: calls with ids of the form functions.name:index.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_kimi_k2;
const ParserSpec parser_kimi_k2 = {
    .name = "kimi_k2",
    .shape = CallShape::kNamedJson,
    .opens = {"<|tool_calls_section_begin|>"},
    .closes = {"<|tool_calls_section_end|>"},
    .call_open = "<|tool_call_begin|>",
    .name_prefix = "functions.",
    .name_close = "<|tool_call_argument_begin|>",
    .call_close = "<|tool_call_end|>",
    .id_is_name = true,
};

}  // namespace pmetal::text::chat
