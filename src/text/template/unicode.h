// UTF-8 and the character classes and case mappings of Python's str, for the template interpreter. All functions
// take valid UTF-8 (lone surrogates in their three-byte form are tolerated) and never read past the end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pmetal::text::jinja::unicode {

int64_t count(std::string_view text);                            // code points
size_t sequence_length(std::string_view text, size_t position);  // bytes of the code point at `position`, ≥ 1
char32_t decode(std::string_view text, size_t position);
void append(std::string& out, char32_t c);
size_t offset(std::string_view text, int64_t n_chars);  // byte offset of code point n (clamped to the end)
bool is_valid(std::string_view text);
std::string repaired(std::string_view text);  // each byte that is no UTF-8 becomes U+FFFD
std::u32string to_u32(std::string_view text);
std::string to_utf8(std::u32string_view text);

bool is_space(char32_t c);       // str.isspace
bool is_line_break(char32_t c);  // str.splitlines, "\r\n" aside
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
inline bool is_alnum(char32_t c) { return is_alpha(c) || is_decimal(c) || is_digit(c) || is_numeric(c); }
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);
bool is_cased(char32_t c);
bool is_printable(char32_t c);  // what repr() leaves as it is
bool is_word(char32_t c);       // \w
int decimal_value(char32_t c);  // of is_decimal characters, else −1

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);  // str.title, not the filter
std::string swapcase(std::string_view text);
std::string casefold(std::string_view text);

// [begin, end) of text without leading / trailing characters of `chars` (whitespace when nullptr)
std::string_view strip(std::string_view text, const std::u32string* chars, bool left, bool right);

}  // namespace pmetal::text::jinja::unicode
