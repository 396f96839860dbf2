// Text from files inside messages and inside JSON that is written.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace pmetal::formats {

// For messages: at most 120 bytes, cut between characters; bytes that are not printable are shown as \xNN.
std::string shortened(std::string_view text);
// As a JSON string with its quotes: escapes ", \ and control bytes, leaves UTF-8 as it is, writes U+FFFD for bytes
// that are not UTF-8.
std::string json_quoted(std::string_view text);
// Appends `text` as a JSON string with quotes; invalid UTF-8 is Error(kInvalidInput) naming `what`
void append_json_string(std::string& out, std::string_view text, std::string_view what);
bool is_valid_utf8(std::string_view text);

}  // namespace pmetal::formats
