// Text on its way through normalizers and pre-tokenizers, which remembers for each byte which bytes of the caller's
// text it came from. A slice is a view; only a change copies. Buffers live in the Arena of one encode call.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/unicode.h"

namespace pmetal::text {

struct Range {
  uint32_t begin = 0, end = 0;
  bool operator==(const Range&) const = default;
};

class Arena {
 public:
  // track_origin false: nobody will ask where bytes came from; changed text then has no alignment
  explicit Arena(bool track_origin) : track_origin_(track_origin) {}
  bool track_origin() const { return track_origin_; }
  std::string_view keep(std::string&& text) { return texts_.emplace_back(std::move(text)); }
  const Range* keep(std::vector<Range>&& origins) { return origins_.emplace_back(std::move(origins)).data(); }

 private:
  bool track_origin_;
  std::deque<std::string> texts_;
  std::deque<std::vector<Range>> origins_;
};

struct Normalized {
  std::string_view text;
  const Range* origins =
      nullptr;         // for each byte of `text`: bytes of the caller's text; null: unchanged from `begin` on
  uint32_t begin = 0;  // where this piece starts in the caller's text

  bool empty() const { return text.empty(); }
  // origin of the character that byte `at` belongs to
  Range origin(size_t at) const {
    if (origins) return origins[at];
    size_t first = at, last = at + 1;
    while (first > 0 && is_utf8_continuation(text[first])) --first;
    while (last < text.size() && is_utf8_continuation(text[last])) ++last;
    return {static_cast<uint32_t>(begin + first), static_cast<uint32_t>(begin + last)};
  }
  // origin of the bytes [first, last), first < last
  Range origin(size_t first, size_t last) const { return {origin(first).begin, origin(last - 1).end}; }
  Normalized slice(size_t first, size_t last) const {
    Normalized s{text.substr(first, last - first), origins ? origins + first : nullptr, begin};
    if (first < last) s.begin = origin(first).begin;
    return s;
  }
};

// Rewrites a piece from left to right. Each output character says how it relates to the input, in the terms of the
// reference library, whose offsets are to be met exactly: change 0 replaces the next input character, 1 is inserted
// (and takes the origin of the character before it), -k replaces one and drops the k that follow.
class Rewriter {
 public:
  Rewriter(const Normalized& in, Arena& arena);
  // drops the first n input characters
  void drop(size_t n_chars) { skip(n_chars); }
  void put(uint32_t c, int change);
  // copies input bytes [at, to) unchanged and leaves the input at `to`; at must be where the input stands
  void copy_until(size_t to);
  size_t position() const { return at_; }
  Normalized finish();

 private:
  void skip(size_t n_chars);
  const Normalized& in_;
  Arena& arena_;
  size_t at_ = 0;  // next input byte
  std::string text_;
  std::vector<Range> origins_;
};

// Puts `prefix` before a non-empty text; its characters share the origin of the first one.
void prepend(Normalized& text, std::string_view prefix, Arena& arena);
// Spells each byte with the printable alphabet of byte-level BPE.
void to_byte_alphabet(Normalized& text, Arena& arena);

// Part of a text cut by added tokens, normalizer and pre-tokenizer.
struct Piece {
  Normalized text;
  int32_t token = -1;  // id of an added token that stands for the whole piece
};

}  // namespace pmetal::text
