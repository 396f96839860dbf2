#include "text/template/markup.h"

#include <charconv>
#include <iterator>

#include "text/template/unicode.h"

namespace pmetal::text::jinja {
namespace {

struct Named {
  const char* name;
  char32_t c;
};
// the references that people write; markupsafe knows all of HTML 5
constexpr Named kNamed[] = {
    {"amp", '&'},      {"lt", '<'},       {"gt", '>'},       {"quot", '"'},     {"apos", '\''},     {"nbsp", 0xa0},
    {"copy", 0xa9},    {"reg", 0xae},     {"laquo", 0xab},   {"raquo", 0xbb},   {"hellip", 0x2026}, {"mdash", 0x2014},
    {"ndash", 0x2013}, {"lsquo", 0x2018}, {"rsquo", 0x2019}, {"ldquo", 0x201c}, {"rdquo", 0x201d},  {"bull", 0x2022},
    {"middot", 0xb7},  {"euro", 0x20ac},  {"pound", 0xa3},   {"yen", 0xa5},     {"cent", 0xa2},     {"sect", 0xa7},
    {"para", 0xb6},    {"deg", 0xb0},     {"plusmn", 0xb1},  {"times", 0xd7},   {"divide", 0xf7},   {"trade", 0x2122},
    {"auml", 0xe4},    {"ouml", 0xf6},    {"uuml", 0xfc},    {"szlig", 0xdf},   {"eacute", 0xe9},   {"egrave", 0xe8},
    {"agrave", 0xe0},  {"ccedil", 0xe7},  {"ntilde", 0xf1}};

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '\'': out += "&#39;"; break;
      case '"': out += "&#34;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string unescape_html(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '&') {
      out += text[i];
      continue;
    }
    const size_t end = text.find(';', i);
    if (end == std::string_view::npos || end - i > 32 || end == i + 1) {
      out += '&';
      continue;
    }
    const std::string_view name = text.substr(i + 1, end - i - 1);
    char32_t c = 0;
    if (name[0] == '#') {
      const bool is_hex = name.size() > 2 && (name[1] | 32) == 'x';
      const char* begin = name.data() + (is_hex ? 2 : 1);
      uint32_t value = 0;
      const auto [stop, code] = std::from_chars(begin, name.data() + name.size(), value, is_hex ? 16 : 10);
      if (code == std::errc() && stop == name.data() + name.size() && value > 0)
        c = value > 0x10ffff || (value >= 0xd800 && value < 0xe000) ? 0xfffd : value;
    } else {
      for (const Named& named : kNamed)
        if (name == named.name) c = named.c;
    }
    if (c == 0) {
      out += '&';
      continue;
    }
    unicode::append(out, c);
    i = end;
  }
  return out;
}

}  // namespace pmetal::text::jinja
