// NFC, NFD, NFKC, NFKD (UAX 15) over text that keeps its origins. Text that is already normalized, by the quick check
// on a small table of bits, is left as it is.
#include <algorithm>
#include <array>

#include "text/tokenizer/normalizers.h"

namespace pmetal::text {

namespace {

struct Char {
  uint32_t c;
  int change;
  int combining;
};

// Decomposed characters in canonical order. The first character of a decomposition replaces, the others are inserted.
std::vector<Char> decomposed(std::string_view text, bool compatibility) {
  std::vector<Char> out;
  out.reserve(text.size());
  size_t run = 0;  // start of the characters that are not yet in order
  const auto order = [&] {
    if (out.size() - run > 1)
      std::stable_sort(out.begin() + run, out.end(),
                       [](const Char& a, const Char& b) { return a.combining < b.combining; });
  };
  std::array<uint32_t, 32> parts{};
  for (size_t at = 0; at < text.size();) {
    const int n = decompose(next_char(text, at), compatibility, parts.data());
    for (int i = 0; i < n; ++i) {
      const int combining = parts[i] < 0x300 ? 0 : combining_class(parts[i]);
      if (combining == 0) {
        order();
        run = out.size();
      }
      out.push_back({parts[i], i > 0, combining});
      if (combining == 0) run = out.size();
    }
  }
  order();
  return out;
}

// Canonical composition in place. A composite takes over the changes of both parts, less one.
void recompose(std::vector<Char>& chars) {
  std::vector<Char> out;
  out.reserve(chars.size());
  ptrdiff_t starter = -1;
  int last_combining = 0;  // of the last character kept behind the starter; 0: none
  for (const Char& c : chars) {
    if (starter >= 0) {
      const bool blocked = last_combining != 0 && last_combining >= c.combining;
      if (!blocked) {
        if (const uint32_t composite = compose(out[starter].c, c.c)) {
          out[starter].c = composite;
          out[starter].change += c.change - 1;
          continue;
        }
      }
    }
    if (c.combining == 0) {
      starter = static_cast<ptrdiff_t>(out.size());
      last_combining = 0;
    } else {
      last_combining = c.combining;
    }
    out.push_back(c);
  }
  chars = std::move(out);
}

// For each code point below 0x30000: may it change, or change its neighbours, under the form?
class QuickCheck {
 public:
  explicit QuickCheck(UnicodeForm form) : bits_(kLimit / 64) {
    const bool compatibility = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
    const bool composes = form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc;
    std::array<uint32_t, 32> parts{};
    for (uint32_t c = 0x80; c < kLimit; ++c) {
      bool may_change = combining_class(c) != 0;
      const bool hangul = c >= 0xac00 && c < 0xd7a4;
      if (!may_change && !(hangul && composes)) {
        const int n = decompose(c, compatibility, parts.data());
        may_change = n != 1 || parts[0] != c;
        if (composes && may_change && n > 1 && !compatibility) {
          std::vector<Char> chars;
          for (int i = 0; i < n; ++i) chars.push_back({parts[i], i > 0, combining_class(parts[i])});
          recompose(chars);
          may_change = chars.size() != 1 || chars[0].c != c;
        }
        // second characters of composites: vowel signs and Hangul vowels and finals
        if (composes) may_change |= (c >= 0x1161 && c < 0x11c3) || is_second_starter(c);
      }
      if (may_change) bits_[c / 64] |= uint64_t{1} << (c % 64);
    }
  }
  bool is_normalized(std::string_view text) const {
    for (size_t at = 0; at < text.size();) {
      if (static_cast<unsigned char>(text[at]) < 0x80) {
        ++at;
        continue;
      }
      const uint32_t c = next_char(text, at);
      if (c < kLimit && bits_[c / 64] >> (c % 64) & 1) return false;
    }
    return true;
  }

 private:
  static constexpr uint32_t kLimit = 0x30000;
  static bool is_second_starter(uint32_t c) {
    // characters of class 0 that compose with one before them (Unicode 15, NFC_Quick_Check=Maybe)
    static constexpr std::array<uint32_t, 16> kSeconds{0x09be, 0x09d7, 0x0b3e, 0x0b56, 0x0b57, 0x0bbe, 0x0bd7, 0x0cc2,
                                                       0x0cd5, 0x0cd6, 0x0d3e, 0x0d57, 0x0dcf, 0x0ddf, 0x102e, 0x1b35};
    static constexpr std::array<uint32_t, 8> kAstral{0x1133e, 0x11357, 0x114b0, 0x114ba,
                                                     0x114bd, 0x115af, 0x11930, 0x110ba};
    return std::find(kSeconds.begin(), kSeconds.end(), c) != kSeconds.end() ||
           std::find(kAstral.begin(), kAstral.end(), c) != kAstral.end();
  }
  std::vector<uint64_t> bits_;
};

class UnicodeNormalizer final : public Normalizer {
 public:
  explicit UnicodeNormalizer(UnicodeForm form) : form_(form) {}
  void apply(Normalized& text, Arena& arena) const override {
    if (is_ascii(text.text)) return;
    static const std::array<QuickCheck, 4> checks{QuickCheck(UnicodeForm::kNfc), QuickCheck(UnicodeForm::kNfd),
                                                  QuickCheck(UnicodeForm::kNfkc), QuickCheck(UnicodeForm::kNfkd)};
    if (checks[static_cast<int>(form_)].is_normalized(text.text)) return;
    auto chars = decomposed(text.text, form_ == UnicodeForm::kNfkc || form_ == UnicodeForm::kNfkd);
    if (form_ == UnicodeForm::kNfc || form_ == UnicodeForm::kNfkc) recompose(chars);
    Rewriter out(text, arena);
    for (const Char& c : chars) out.put(c.c, c.change);
    text = out.finish();
  }

 private:
  UnicodeForm form_;
};

}  // namespace

NormalizerPtr unicode_normalizer(UnicodeForm form) { return std::make_unique<UnicodeNormalizer>(form); }

}  // namespace pmetal::text
