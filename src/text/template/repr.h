// str() and repr() of values, as Python prints them.
#pragma once

#include <string>

#include "text/template/value.h"

namespace pmetal::text::jinja {

std::string repr_float(double d);             // shortest digits that read back, as Python's float.__repr__
std::string repr_string(std::string_view s);  // with quotes and escapes
std::string repr(const Value& v);
std::string str(const Value& v);

}  // namespace pmetal::text::jinja
