// Nemotron: a JSON list between tags.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_nemotron;
const ParserSpec parser_nemotron = {
    .name = "nemotron",
    .shape = CallShape::kJson,
    .opens = {"<TOOLCALL>"},
    .closes = {"</TOOLCALL>"},
};

}  // namespace pmetal::text::chat
