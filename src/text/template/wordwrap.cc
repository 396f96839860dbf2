#include "text/template/wordwrap.h"

#include <algorithm>

#include "text/template/unicode.h"

namespace pmetal::text::jinja {
namespace {

using Text = std::u32string;
using View = std::u32string_view;

bool is_blank(char32_t c) { return c == ' ' || (c >= 9 && c <= 13); }  // textwrap's own whitespace is ASCII
bool is_letter(char32_t c) { return unicode::is_word(c) && !unicode::is_decimal(c); }
bool is_word_punctuation(char32_t c) {
  return unicode::is_word(c) || c == '!' || c == '"' || c == '\'' || c == '&' || c == '.' || c == ',' || c == '?';
}

// The chunks a line may be broken between: whitespace, words, words up to a hyphen between letters, em-dashes.
std::vector<Text> chunks(View s, bool on_hyphens) {
  std::vector<Text> out;
  size_t i = 0;
  while (i < s.size()) {
    const size_t begin = i;
    if (is_blank(s[i])) {
      while (i < s.size() && is_blank(s[i])) ++i;
    } else if (!on_hyphens) {
      while (i < s.size() && !is_blank(s[i])) ++i;
    } else {
      const auto dashes = [&](size_t k) {
        size_t n = 0;
        while (k + n < s.size() && s[k + n] == '-') ++n;
        return n;
      };
      // an em-dash after word punctuation and before a word character is a chunk
      const size_t run = dashes(i);
      if (run >= 2 && i > 0 && is_word_punctuation(s[i - 1]) && i + run < s.size() && unicode::is_word(s[i + run])) {
        i += run;
      } else {
        ++i;
        while (i < s.size() && !is_blank(s[i])) {
          if (s[i - 1] == '-' && i >= begin + 2) {  // after a hyphen: letters on both sides, two before
            const bool letters_before =
                (i >= begin + 3 && is_letter(s[i - 2]) && is_letter(s[i - 3])) ||
                (i >= begin + 4 && is_letter(s[i - 2]) && s[i - 3] == '-' && is_letter(s[i - 4]));
            const bool letters_after =
                is_letter(s[i]) && i + 1 < s.size() &&
                (is_letter(s[i + 1]) || (s[i + 1] == '-' && i + 2 < s.size() && is_letter(s[i + 2])));
            if (letters_before && letters_after) break;
          }
          const size_t n = dashes(i);
          if (n >= 2 && is_word_punctuation(s[i - 1]) && i + n < s.size() && unicode::is_word(s[i + n])) break;
          ++i;
        }
      }
    }
    out.emplace_back(s.substr(begin, i - begin));
  }
  return out;
}

bool is_all_blank(const Text& t) {
  return std::all_of(t.begin(), t.end(), [](char32_t c) { return unicode::is_space(c); });
}

}  // namespace

std::vector<std::string> wrap(std::string_view text, int64_t width, bool break_long_words, bool break_on_hyphens) {
  std::vector<Text> rest = chunks(unicode::to_u32(text), break_on_hyphens);
  std::reverse(rest.begin(), rest.end());
  std::vector<std::string> lines;
  const auto limit = static_cast<size_t>(width);
  while (!rest.empty()) {
    std::vector<Text> line;
    size_t size = 0;
    if (!lines.empty() && is_all_blank(rest.back())) rest.pop_back();
    while (!rest.empty() && size + rest.back().size() <= limit) {
      size += rest.back().size();
      line.push_back(std::move(rest.back()));
      rest.pop_back();
    }
    if (!rest.empty() && rest.back().size() > limit) {
      Text& chunk = rest.back();
      if (break_long_words) {
        const size_t space = limit - size;
        size_t end = space;
        if (break_on_hyphens && chunk.size() > space) {
          const size_t hyphen = space > 0 ? View(chunk).substr(0, space).rfind(U'-') : View::npos;
          if (hyphen != View::npos && hyphen > 0 &&
              std::any_of(chunk.begin(), chunk.begin() + static_cast<std::ptrdiff_t>(hyphen),
                          [](char32_t c) { return c != U'-'; }))
            end = hyphen + 1;
        }
        line.push_back(chunk.substr(0, end));
        chunk.erase(0, end);
      } else if (line.empty()) {
        line.push_back(std::move(chunk));
        rest.pop_back();
      }
    }
    if (!line.empty() && is_all_blank(line.back())) line.pop_back();
    if (line.empty()) continue;
    std::string joined;
    for (const Text& piece : line) joined += unicode::to_utf8(piece);
    lines.push_back(std::move(joined));
  }
  return lines;
}

}  // namespace pmetal::text::jinja
