// Python's textwrap.wrap without tab expansion and whitespace replacement.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pmetal::text::jinja {

std::vector<std::string> wrap(std::string_view text, int64_t width, bool break_long_words, bool break_on_hyphens);

}  // namespace pmetal::text::jinja
