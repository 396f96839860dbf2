// Added tokens: found in the text before (or after) normalization, longest first, and never cut by the model.
#pragma once

#include <string>
#include <vector>

#include "text/tokenizer/byte_trie.h"
#include "text/tokenizer/normalized.h"
#include "text/tokenizer/tokenizer.h"

namespace pmetal::text {

class AddedTokenFinder {
 public:
  // `content` is what is looked for (normalized where the token says so); `token` is an index the finder gives back.
  // Of equal contents the first counts. An empty one is found between any two characters where nothing longer is.
  void add(std::string_view content, int32_t token);
  bool empty() const { return trie_.empty() && empty_token_ < 0; }
  // cuts `piece` at the tokens found; `tokens` is what the indices mean
  void split(const Normalized& piece, const std::vector<AddedToken>& tokens, std::vector<Piece>& out) const;

 private:
  // next match at or after `at`: leftmost, then longest; not an empty one at `last_end`, where the last one ended
  bool find(std::string_view text, size_t at, size_t last_end, size_t& begin, size_t& end, int32_t& token) const;
  ByteTrie trie_;
  int32_t empty_token_ = -1;
  int n_first_bytes_ = 0;
  unsigned char first_byte_ = 0;
};

}  // namespace pmetal::text
