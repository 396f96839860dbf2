// DeepSeek V3.1: name, separator, arguments.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_deepseek_v31;
const ParserSpec parser_deepseek_v31 = {
    .name = "deepseek_v31",
    .shape = CallShape::kNamedJson,
    .opens = {"<｜tool▁calls▁begin｜>"},
    .closes = {"<｜tool▁calls▁end｜>"},
    .call_open = "<｜tool▁call▁begin｜>",
    .name_close = "<｜tool▁sep｜>",
    .call_close = "<｜tool▁call▁end｜>",
};

}  // namespace pmetal::text::chat
