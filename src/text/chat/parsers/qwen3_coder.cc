// Qwen3-Coder and Qwen 3.5: XML-like tags for the function and each parameter.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_qwen3_coder;
const ParserSpec parser_qwen3_coder = {
    .name = "qwen3_coder",
    .shape = CallShape::kTagged,
    .opens = {"<tool_call>"},
    .closes = {"</tool_call>"},
    .call_open = "<function=",
    .name_close = ">",
    .call_close = "</function>",
    .key_open = "<parameter=",
    .key_close = ">",
    .value_close = "</parameter>",
};

}  // namespace pmetal::text::chat
