// DeepSeek V3 and R1-0528: name, then the arguments in a fenced block.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_deepseek_v3;
const ParserSpec parser_deepseek_v3 = {
    .name = "deepseek_v3",
    .shape = CallShape::kNamedJson,
    .opens = {"<｜tool▁calls▁begin｜>"},
    .closes = {"<｜tool▁calls▁end｜>"},
    .call_open = "<｜tool▁call▁begin｜>",
    .name_prefix = "function<｜tool▁sep｜>",
    .name_close = "\n```json\n",
    .call_close = "\n```<｜tool▁call▁end｜>",
};

}  // namespace pmetal::text::chat
