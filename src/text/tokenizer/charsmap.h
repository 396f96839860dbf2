// SentencePiece's precompiled character map: a double-array trie (Darts-clone layout) from byte strings to offsets in a
// block of NUL-terminated replacements. Untrusted: every step is checked against the arrays.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pmetal::text {

class Charsmap {
 public:
  // layout: u32 size of the trie in bytes, the trie's u32 units (little-endian), the replacements. Empty: maps nothing.
  Charsmap(std::string_view blob, const std::string& where);
  struct Match {
    size_t size = 0;  // bytes of the key
    std::string_view replacement;
  };
  // keys that start the text: the shortest, the longest
  std::optional<Match> shortest(std::string_view text) const { return find(text, true); }
  std::optional<Match> longest(std::string_view text) const { return find(text, false); }

 private:
  std::optional<Match> find(std::string_view text, bool first) const;
  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace pmetal::text
