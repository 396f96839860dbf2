// Hand-written scanners for the pre-tokenizer patterns of released byte-level tokenizers. They give exactly the matches
// of the regular expression (scanner_test.cc compares them with PCRE2), several times faster.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace pmetal::text {

// End of the match that starts at text[at], at < text.size(). These patterns match at every position, so matches cover
// the text without gaps.
using ScanFunction = size_t (*)(std::string_view text, size_t at);

struct KnownPattern {
  std::string_view name, pattern;
  ScanFunction scan;
};
const std::vector<KnownPattern>& known_patterns();

// the scanner for this pattern text, or null
ScanFunction find_scanner(std::string_view pattern);

// the pattern of Qwen2 and Qwen3, which our own trainer uses
extern const char* const kQwen2Pattern;

}  // namespace pmetal::text
