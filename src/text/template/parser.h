// Template text → ParsedTemplate, with jinja2's grammar and precedence, the loop controls extension and the
// {% generation %} tag. Unknown filters and tests are refused here unless they stand in a branch that may never run.
#pragma once

#include <string_view>

#include "text/template/ast.h"

namespace pmetal::text::jinja {

constexpr int kMaxParseDepth = 200;  // nested expressions and blocks; a template of 900 lines stays below 30

constexpr int kMaxHeight = 2 * kMaxParseDepth;  // of one expression tree

// throws, naming the line, on malformed templates
ParsedTemplate parse(std::string_view source);

}  // namespace pmetal::text::jinja
