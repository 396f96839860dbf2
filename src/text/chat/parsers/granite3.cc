// Granite 3: a JSON list after a marker.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_granite3;
const ParserSpec parser_granite3 = {
    .name = "granite3",
    .shape = CallShape::kJson,
    .opens = {"<|tool_call|>"},
};

}  // namespace pmetal::text::chat
