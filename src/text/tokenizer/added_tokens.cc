#include "text/tokenizer/added_tokens.h"

#include <algorithm>
#include <cstring>

namespace pmetal::text {

void AddedTokenFinder::add(std::string_view content, int32_t token) {
  if (content.empty()) {
    if (empty_token_ < 0) empty_token_ = token;
    return;
  }
  const auto first = static_cast<unsigned char>(content[0]);
  if (!trie_.starts_with(first)) {
    ++n_first_bytes_;
    first_byte_ = first;
  }
  uint32_t node = ByteTrie::kRoot;
  for (size_t i = 0; i < content.size(); ++i) {
    node = trie_.step(node, static_cast<uint8_t>(content[i]));
    if (node == ByteTrie::kNoNode) break;
  }
  if (node == ByteTrie::kNoNode || trie_.value(node) < 0) trie_.insert(content, token);
}

bool AddedTokenFinder::find(std::string_view text, size_t at, size_t last_end, size_t& begin, size_t& end,
                            int32_t& token) const {
  for (; at < text.size(); ++at) {
    if (empty_token_ >= 0) {
      if (is_utf8_continuation(text[at])) continue;
    } else if (n_first_bytes_ == 1) {
      const void* hit = std::memchr(text.data() + at, first_byte_, text.size() - at);
      if (!hit) return false;
      at = static_cast<size_t>(static_cast<const char*>(hit) - text.data());
    } else if (!trie_.starts_with(static_cast<uint8_t>(text[at]))) {
      continue;
    }
    uint32_t node = ByteTrie::kRoot;
    token = -1;
    for (size_t i = at; i < text.size();) {
      node = trie_.step(node, static_cast<uint8_t>(text[i++]));
      if (node == ByteTrie::kNoNode) break;
      if (trie_.value(node) >= 0) {
        token = trie_.value(node);
        end = i;
      }
    }
    if (token < 0 && empty_token_ >= 0 && at != last_end) {
      token = empty_token_;
      end = at;
    }
    if (token >= 0) {
      begin = at;
      return true;
    }
  }
  if (empty_token_ < 0 || at != text.size() || at == last_end) return false;
  token = empty_token_;
  begin = end = at;
  return true;
}

void AddedTokenFinder::split(const Normalized& piece, const std::vector<AddedToken>& tokens,
                             std::vector<Piece>& out) const {
  const std::string_view text = piece.text;
  const auto emit = [&](size_t begin, size_t end, int32_t id) {
    if (begin < end) out.push_back({piece.slice(begin, end), id});
  };
  size_t done = 0, at = 0, last_end = text.size() + 1, begin = 0, end = 0;
  int32_t index = -1;
  while (!empty() && !text.empty() && find(text, at, last_end, begin, end, index)) {
    at = last_end = end;  // stripping does not move where the search goes on
    const AddedToken& token = tokens[index];
    if (token.single_word || token.lstrip || token.rstrip) {
      const CharClasses classes;
      if (token.single_word) {
        size_t left = begin, right = end;
        const bool word_before = begin > 0 && classes(previous_char(text, left)) & kWord;
        const bool word_behind = end < text.size() && classes(next_char(text, right)) & kWord;
        if (word_before || word_behind) continue;
      }
      if (token.lstrip) {
        size_t left = begin;
        while (left > 0) {
          size_t before = left;
          if (!(classes(previous_char(text, before)) & kSpace)) break;
          left = before;
        }
        begin = std::max(left, done);
      }
      if (token.rstrip)
        for (size_t right = end; right < text.size() && classes(next_char(text, right)) & kSpace;) end = right;
    }
    if (done < begin) emit(done, begin, -1);
    emit(begin, end, token.id);
    done = end;
  }
  if (done < text.size()) emit(done, text.size(), -1);
}

}  // namespace pmetal::text
