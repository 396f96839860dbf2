#include "text/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "text/tokenizer/unicode_updates.h"

namespace pmetal::text {

namespace {

bool is_white_space(uint32_t c) {  // property White_Space
  return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

// letters among the symbols: circled and squared Latin letters have Other_Alphabetic
bool is_alphabetic_symbol(uint32_t c) {
  return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
         (c >= 0x1f170 && c <= 0x1f189);
}

uint16_t classify(uint32_t c) {
  uint16_t bits = 0;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU: bits = kUpper | kWord; break;
    case UTF8PROC_CATEGORY_LL: bits = kLower | kWord; break;
    case UTF8PROC_CATEGORY_LT: bits = kTitle | kWord; break;
    case UTF8PROC_CATEGORY_LM: bits = kModifier | kWord; break;
    case UTF8PROC_CATEGORY_LO: bits = kOtherLetter | kWord; break;
    case UTF8PROC_CATEGORY_MN: bits = kMark | kAccent | kNonspacing | kWord; break;
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: bits = kMark | kAccent | kWord; break;
    case UTF8PROC_CATEGORY_ND: bits = kNumber | kNumeric | kWord; break;
    case UTF8PROC_CATEGORY_NL: bits = kNumber | kNumeric | kWord; break;
    case UTF8PROC_CATEGORY_NO: bits = kNumber | kNumeric; break;
    case UTF8PROC_CATEGORY_PC: bits = kPunctuation | kWord; break;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO: bits = kPunctuation; break;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO: bits = kSymbol; break;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_CN: break;
    default: bits = kOther; break;
  }
  if (is_white_space(c)) bits |= kSpace;
  if (is_alphabetic_symbol(c) || c == 0x200c || c == 0x200d) bits |= kWord;
  return bits;
}

struct OwnedTable {
  std::array<uint8_t, 0x1100> page_of{};
  std::vector<uint16_t> pages;
  detail::ClassTable view{};

  OwnedTable() {
    std::array<uint16_t, 256> page{};
    const ClassUpdate* update = kClassUpdates.data();
    const ClassUpdate* const last_update = update + kClassUpdates.size();
    for (uint32_t block = 0; block < 0x1100; ++block) {
      for (uint32_t i = 0; i < 256; ++i) {
        const uint32_t c = block << 8 | i;
        page[i] = classify(c);
        while (update != last_update && update->last < c) ++update;
        if (update != last_update && update->first <= c)
          page[i] = static_cast<uint16_t>((page[i] & ~update->clear) | update->set);
      }
      uint32_t found = 0;
      const auto n_pages = static_cast<uint32_t>(pages.size() / 256);
      // unassigned and ideographic blocks repeat: looking at the last pages finds nearly all of them
      for (found = n_pages > 4 ? n_pages - 4 : 0; found < n_pages; ++found)
        if (std::equal(page.begin(), page.end(), pages.begin() + found * 256)) break;
      if (found == n_pages) pages.insert(pages.end(), page.begin(), page.end());
      page_of[block] = static_cast<uint8_t>(found);
    }
    view = {page_of.data(), pages.data()};
  }
};

struct Alphabet {
  std::array<uint16_t, 256> to_char{};
  std::array<int16_t, 0x144> to_byte{};
  Alphabet() {
    to_byte.fill(-1);
    uint16_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      to_char[b] = printable ? static_cast<uint16_t>(b) : next++;
      to_byte[to_char[b]] = static_cast<int16_t>(b);
    }
  }
};
const Alphabet kAlphabet;

// the range that holds c, or null
template <class Ranges>
auto find_range(const Ranges& ranges, uint32_t c) {
  const auto* range = std::lower_bound(ranges.data(), ranges.data() + ranges.size(), c,
                                       [](const auto& r, uint32_t value) { return r.last < value; });
  return range != ranges.data() + ranges.size() && range->first <= c ? range : nullptr;
}

// characters younger than the version of Unicode whose normal forms are asked for
bool is_not_normalized(uint32_t c) { return c >= kNotNormalized[0].first && find_range(kNotNormalized, c) != nullptr; }

}  // namespace

const detail::ClassTable& detail::class_table() {
  static const OwnedTable table;
  return table.view;
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xc0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xe0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (c & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3f));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (c & 0x3f));
  }
}

std::string to_utf8(uint32_t c) {
  std::string out;
  append_utf8(out, c);
  return out;
}

size_t count_chars(std::string_view text) {
  size_t n = 0;
  for (char c : text) n += !is_utf8_continuation(c);
  return n;
}

bool is_ascii(std::string_view text) {
  unsigned char all = 0;
  for (char c : text) all |= static_cast<unsigned char>(c);
  return all < 0x80;
}

namespace {

// Reads one character at bytes[at]. Returns its length, or minus the length of the maximal ill-formed part;
// `is_cut` tells that the part is the start of a character that the end of the bytes cuts off.
int check_char(std::string_view bytes, size_t at, bool& is_cut) {
  is_cut = false;
  const auto* p = reinterpret_cast<const unsigned char*>(bytes.data());
  const unsigned char lead = p[at];
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return -1;
  const int length = utf8_length(lead);
  for (int i = 1; i < length; ++i) {
    if (at + i >= bytes.size()) {
      is_cut = true;
      return -i;
    }
    unsigned char low = 0x80, high = 0xbf;
    if (i == 1) {
      if (lead == 0xe0) low = 0xa0;
      if (lead == 0xed) high = 0x9f;
      if (lead == 0xf0) low = 0x90;
      if (lead == 0xf4) high = 0x8f;
    }
    if (p[at + i] < low || p[at + i] > high) return -i;
  }
  return length;
}

}  // namespace

bool is_valid_utf8(std::string_view bytes) {
  bool is_cut = false;
  for (size_t at = 0; at < bytes.size();) {
    const int n = check_char(bytes, at, is_cut);
    if (n < 0) return false;
    at += n;
  }
  return true;
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  bool is_cut = false;
  for (size_t at = 0; at < bytes.size();) {
    const int n = check_char(bytes, at, is_cut);
    if (n > 0)
      out.append(bytes, at, n);
    else
      out += "\xef\xbf\xbd";
    at += n > 0 ? n : -n;
  }
  return out;
}

size_t incomplete_tail(std::string_view bytes) {
  for (size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    const size_t at = bytes.size() - back;
    if (is_utf8_continuation(bytes[at])) continue;
    bool is_cut = false;
    const int n = check_char(bytes, at, is_cut);
    return is_cut && static_cast<size_t>(-n) == back ? back : 0;
  }
  return 0;
}

int combining_class(uint32_t c) {
  if (is_not_normalized(c)) return 0;
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class;
}

int decompose(uint32_t c, bool compatibility, uint32_t* out) {
  if (c < 0x80 || is_not_normalized(c)) {
    out[0] = c;
    return 1;
  }
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatibility ? UTF8PROC_COMPAT : 0));
  int boundary = 0;
  const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), reinterpret_cast<utf8proc_int32_t*>(out), 32,
                                         options, &boundary);
  if (n <= 0 || n > 32) {
    out[0] = c;
    return 1;
  }
  return static_cast<int>(n);
}

uint32_t compose(uint32_t a, uint32_t b) {
  // Hangul syllables compose by arithmetic (Unicode, section 3.12)
  if (a >= 0x1100 && a < 0x1113 && b >= 0x1161 && b < 0x1176) return 0xac00 + ((a - 0x1100) * 21 + (b - 0x1161)) * 28;
  if (a >= 0xac00 && a < 0xd7a4 && (a - 0xac00) % 28 == 0 && b > 0x11a7 && b < 0x11c3) return a + (b - 0x11a7);
  if (is_not_normalized(a) || is_not_normalized(b)) return 0;
  if (b < 0x300) return 0;  // no second character of a composite lies below the combining marks
  // utf8proc only composes through utf8proc_normalize_utf32; give it the pair
  utf8proc_int32_t pair[2] = {static_cast<utf8proc_int32_t>(a), static_cast<utf8proc_int32_t>(b)};
  const auto n = utf8proc_normalize_utf32(pair, 2, static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  return n == 1 ? static_cast<uint32_t>(pair[0]) : 0;
}

int lowercase(uint32_t c, uint32_t* out) {
  if (c == 0x130) {  // the one character whose full mapping has two characters
    out[0] = 'i';
    out[1] = 0x307;
    return 2;
  }
  if (c >= kLowerUpdates[0].first)
    if (const auto* update = find_range(kLowerUpdates, c)) {
      out[0] = c + static_cast<uint32_t>(update->distance);
      return 1;
    }
  out[0] = static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
  return 1;
}

uint32_t byte_to_char(uint8_t byte) { return kAlphabet.to_char[byte]; }
int char_to_byte(uint32_t c) { return c < 0x144 ? kAlphabet.to_byte[c] : -1; }

std::string bytes_to_alphabet(std::string_view bytes) {
  std::string out;
  for (char b : bytes) append_utf8(out, byte_to_char(static_cast<uint8_t>(b)));
  return out;
}

bool alphabet_to_bytes(std::string_view text, std::string& bytes) {
  bytes.clear();
  for (size_t at = 0; at < text.size();) {
    const int b = char_to_byte(next_char(text, at));
    if (b < 0) return false;
    bytes += static_cast<char>(b);
  }
  return true;
}

}  // namespace pmetal::text
