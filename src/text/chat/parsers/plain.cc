// Formats without calls: reasoning and content only.
#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

extern const ParserSpec parser_plain;
const ParserSpec parser_plain = {
    .name = "plain",
    .shape = CallShape::kNone,
};

}  // namespace pmetal::text::chat
