// GLM 4.5 and later: the name, then key and value tags.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_glm45;
const ParserSpec parser_glm45 = {
    .name = "glm45",
    .shape = CallShape::kTagged,
    .call_open = "<tool_call>",
    .name_close = "\n",
    .call_close = "</tool_call>",
    .key_open = "<arg_key>",
    .key_close = "</arg_key>",
    .value_open = "<arg_value>",
    .value_close = "</arg_value>",
};

}  // namespace pmetal::text::chat
