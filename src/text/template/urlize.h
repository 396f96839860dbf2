// jinja2's urlize: links around what looks like a URL or a mail address in (escaped) text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pmetal::text::jinja {

struct UrlizeOptions {
  int64_t trim_limit = -1;  // characters of a link's text, −1: all
  std::string rel;
  std::string target;
  std::vector<std::string> extra_schemes;
};
std::string urlize(std::string_view escaped_text, const UrlizeOptions& options);

}  // namespace pmetal::text::jinja
