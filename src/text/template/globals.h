// The functions every template has: range, dict, namespace, cycler, joiner, raise_exception, strftime_now.
#pragma once

#include <string_view>

#include "text/template/value.h"

namespace pmetal::text::jinja {

bool find_global(std::string_view name, Value* out);

}  // namespace pmetal::text::jinja
