// Cuts template text into tokens as jinja2 3.1 does with trim_blocks and lstrip_blocks: text between tags, tag borders
// with their whitespace control (- + and the trimmed newline), and what stands inside tags. Comments and {% raw %} are
// resolved here. A single newline at the end of the template is dropped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/template/value.h"

namespace pmetal::text::jinja {

enum class TokenKind : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;  // data, name, string contents or operator
  Value number;      // integers and floats
};

// throws on malformed text, naming the line
std::vector<Token> tokenize(std::string_view source);

}  // namespace pmetal::text::jinja
