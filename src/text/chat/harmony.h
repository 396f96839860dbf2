// Output of gpt-oss: messages `<|channel|>NAME …<|message|>text<|end|>`, see harmony.cc.
#pragma once

#include <memory>

#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

std::unique_ptr<OutputParser> make_harmony_parser(ParserOptions options);

}  // namespace pmetal::text::chat
