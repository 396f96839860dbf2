// Python's two string formatting languages: "%s" % values and "{}".format(values), and format specs.
#pragma once

#include <string>
#include <string_view>

#include "text/template/value.h"

namespace pmetal::text::jinja {

Value format_percent(Interpreter& in, const Value& format, const Value& values);
// "{...}".format(*args, **kwargs) with attribute access through the sandbox
Value format_braces(Interpreter& in, const Value& format, CallArgs& args);
std::string format_spec(Interpreter& in, const Value& v, std::string_view spec);  // format(v, spec)

}  // namespace pmetal::text::jinja
