// MiniMax M2: invoke and parameter tags.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_minimax_m2;
const ParserSpec parser_minimax_m2 = {
    .name = "minimax_m2",
    .shape = CallShape::kTagged,
    .opens = {"<minimax:tool_call>"},
    .closes = {"</minimax:tool_call>"},
    .call_open = "<invoke name=\"",
    .name_close = "\">",
    .call_close = "</invoke>",
    .key_open = "<parameter name=\"",
    .key_close = "\">",
    .value_close = "</parameter>",
};

}  // namespace pmetal::text::chat
