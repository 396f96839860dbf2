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

}  // namespace pmetal::formats
