// The methods of Python's str, list, tuple, dict, range, int and float that a template may call.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/template/value.h"

namespace pmetal::text::jinja {

using MethodFunction = Value (*)(Interpreter&, const Value& self, CallArgs& args);

MethodFunction find_method(const Value& object, std::string_view name);  // nullptr when there is none
bool is_mutating_method(const Value& object, std::string_view name);     // forbidden by the immutable sandbox

MethodFunction find_string_method(std::string_view name);  // methods_string.cc

// building blocks that filters share
std::string replace_text(Interpreter& in, std::string_view text, std::string_view old, std::string_view with,
                         int64_t limit);  // limit < 0: all
// padded to `width` characters: centred (0), to the left (-1), to the right (1)
Value justified(Interpreter& in, const Value& text, int64_t width, const std::string& fill, int side);
std::vector<Value> split_lines(Interpreter& in, const std::string& text, bool keep_ends);

}  // namespace pmetal::text::jinja
