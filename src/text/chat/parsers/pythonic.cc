// Llama 4 and others: a list of calls in Python syntax.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_pythonic;
const ParserSpec parser_pythonic = {
    .name = "pythonic",
    .shape = CallShape::kPythonic,
    .opens = {"<|python_start|>"},
    .closes = {"<|python_end|>"},
    .is_bare = true,
};

}  // namespace pmetal::text::chat
