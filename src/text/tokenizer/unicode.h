// UTF-8 and the character classes that tokenizers ask for. Classes come from one table of bits per code point, built
// once from utf8proc's data, so that a lookup is two loads.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pmetal::text {

enum CharClass : uint16_t {
  kUpper = 1 << 0,     // Lu
  kTitle = 1 << 1,     // Lt
  kLower = 1 << 2,     // Ll
  kModifier = 1 << 3,  // Lm
  kOtherLetter = 1 << 4,
  kLetter = kUpper | kTitle | kLower | kModifier | kOtherLetter,
  kMark = 1 << 5,         // Mn, Mc, Me
  kNonspacing = 1 << 6,   // Mn, as BERT's normalizer knows them
  kNumber = 1 << 7,       // Nd, Nl, No
  kPunctuation = 1 << 8,  // P*, as the Punctuation components know them
  kSymbol = 1 << 9,       // S*
  kSpace = 1 << 10,       // White_Space
  kWord = 1 << 11,        // \w: Alphabetic, M, Nd, Pc, Join_Control
  kOther = 1 << 12,       // Cc, Cf, Co, Cs, as BERT's normalizer knows them
  kNumeric = 1 << 13,     // kNumber as the Digits component knows them
  kAccent = 1 << 14,      // kMark as StripAccents knows them
};

namespace detail {
struct ClassTable {
  const uint8_t* page_of;  // [0x1100]: page index of each block of 256 code points
  const uint16_t* pages;   // [n_pages * 256]
};
extern const ClassTable& class_table();
}  // namespace detail

// Bits of CharClass for a code point. Holds the table, so that inner loops pay for its lookup once.
class CharClasses {
 public:
  CharClasses() : table_(detail::class_table()) {}
  uint16_t operator()(uint32_t c) const { return table_.pages[(uint32_t{table_.page_of[c >> 8]} << 8) | (c & 0xff)]; }

 private:
  detail::ClassTable table_;
};

// Length of the character that starts with this byte of well-formed UTF-8.
inline int utf8_length(unsigned char lead) { return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4; }
inline bool is_utf8_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// Decodes the character at text[at] of well-formed UTF-8 and moves `at` behind it.
inline uint32_t next_char(std::string_view text, size_t& at) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data()) + at;
  if (p[0] < 0x80) {
    at += 1;
    return p[0];
  }
  if (p[0] < 0xe0) {
    at += 2;
    return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
  }
  if (p[0] < 0xf0) {
    at += 3;
    return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
  }
  at += 4;
  return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
}
// Moves `at` to the start of the character before it and returns that character. at > 0.
inline uint32_t previous_char(std::string_view text, size_t& at) {
  do --at;
  while (at > 0 && is_utf8_continuation(text[at]));
  size_t end = at;
  return next_char(text, end);
}
void append_utf8(std::string& out, uint32_t c);
std::string to_utf8(uint32_t c);
size_t count_chars(std::string_view text);
bool is_ascii(std::string_view text);

// Well-formed UTF-8 without surrogates?
bool is_valid_utf8(std::string_view bytes);
// Every maximal ill-formed part becomes U+FFFD (Unicode 15, section 3.9, "substitution of maximal subparts").
std::string to_valid_utf8(std::string_view bytes);
// Length of the incomplete but so far well-formed character at the end of `bytes`: 0 to 3.
size_t incomplete_tail(std::string_view bytes);

// Canonical combining class, and the decompositions and the primary composite of Unicode's normalization (UAX 15).
int combining_class(uint32_t c);
// full canonical (or compatibility) decomposition, not reordered; out holds at most 32; returns the count
int decompose(uint32_t c, bool compatibility, uint32_t* out);
// primary composite of the pair or 0
uint32_t compose(uint32_t a, uint32_t b);
// full lower-case mapping without context; out holds at most 3; returns the count
int lowercase(uint32_t c, uint32_t* out);

// The printable alphabet of byte-level BPE (GPT-2): each byte as one code point below 0x144, and back (-1: not in it).
uint32_t byte_to_char(uint8_t byte);
int char_to_byte(uint32_t c);
std::string bytes_to_alphabet(std::string_view bytes);
// false when a character is not in the alphabet; `bytes` is then unspecified
bool alphabet_to_bytes(std::string_view text, std::string& bytes);

}  // namespace pmetal::text
