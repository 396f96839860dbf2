// HTML escaping as markupsafe does it.
#pragma once

#include <string>
#include <string_view>

namespace pmetal::text::jinja {

std::string escape_html(std::string_view text);    // & < > ' "
std::string unescape_html(std::string_view text);  // character references, numeric and the common names

}  // namespace pmetal::text::jinja
