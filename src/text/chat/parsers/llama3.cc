// Llama 3.1 to 3.3: the answer is one JSON object, or several between semicolons.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_llama3;
const ParserSpec parser_llama3 = {
    .name = "llama3",
    .shape = CallShape::kJson,
    .reasoning_open = "",
    .reasoning_close = "",
    .opens = {"<|python_tag|>"},
    .closes = {"<|eom_id|>", "<|eot_id|>"},
    .is_bare = true,
    .arguments_key = "parameters",
    .separator = ";",
};

}  // namespace pmetal::text::chat
