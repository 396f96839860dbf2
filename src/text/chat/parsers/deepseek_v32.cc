// DeepSeek V3.2 and V4: DSML tags that say which values are text.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_deepseek_v32;
const ParserSpec parser_deepseek_v32 = {
    .name = "deepseek_v32",
    .shape = CallShape::kTagged,
    .opens = {"<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"},
    .closes = {"</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"},
    .call_open = "<｜DSML｜invoke name=\"",
    .name_close = "\">",
    .call_close = "</｜DSML｜invoke>",
    .key_open = "<｜DSML｜parameter name=\"",
    .key_close = "\"",
    .attribute_close = ">",
    .value_close = "</｜DSML｜parameter>",
    .trims_newline = false,
};

}  // namespace pmetal::text::chat
