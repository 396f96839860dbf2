// Seed-OSS: function and parameter tags.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_seed_oss;
const ParserSpec parser_seed_oss = {
    .name = "seed_oss",
    .shape = CallShape::kTagged,
    .reasoning_open = "<seed:think>",
    .reasoning_close = "</seed:think>",
    .opens = {"<seed:tool_call>"},
    .closes = {"</seed:tool_call>"},
    .call_open = "<function=",
    .name_close = ">",
    .call_close = "</function>",
    .key_open = "<parameter=",
    .key_close = ">",
    .value_close = "</parameter>",
};

}  // namespace pmetal::text::chat
