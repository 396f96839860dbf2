// The tests of jinja2 3.1 (`x is defined` …).
#pragma once

#include <string_view>

#include "text/template/ast.h"

namespace pmetal::text::jinja {

TestFunction find_test(std::string_view name);  // nullptr when there is none

}  // namespace pmetal::text::jinja
