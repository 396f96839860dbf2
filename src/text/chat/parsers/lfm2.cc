// LFM2: a list of calls in Python syntax between markers.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_lfm2;
const ParserSpec parser_lfm2 = {
    .name = "lfm2",
    .shape = CallShape::kPythonic,
    .opens = {"<|tool_call_start|>"},
    .closes = {"<|tool_call_end|>"},
};

}  // namespace pmetal::text::chat
