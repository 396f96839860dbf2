// One-to-many case mappings, see special_casing.cc.
#pragma once

namespace pmetal::text::jinja::unicode {

const char* special_upper(char32_t c);  // UTF-8, or nullptr where the mapping is one-to-one
const char* special_title(char32_t c);

}  // namespace pmetal::text::jinja::unicode
