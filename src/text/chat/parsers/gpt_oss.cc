// gpt-oss: messages with channels and recipients.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_gpt_oss;
const ParserSpec parser_gpt_oss = {
    .name = "gpt_oss",
    .shape = CallShape::kHarmony,
    .reasoning_open = "",
    .reasoning_close = "",
    .opens = {"<|channel|>"},
};

}  // namespace pmetal::text::chat
