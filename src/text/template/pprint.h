// Python's pprint.pformat at its default width of 80.
#pragma once

#include <string>

#include "text/template/value.h"

namespace pmetal::text::jinja {

std::string pprint(const Value& v);

}  // namespace pmetal::text::jinja
