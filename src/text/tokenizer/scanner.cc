#include "text/tokenizer/scanner.h"

#include <array>
#include <utility>

#include "text/tokenizer/pre_tokenizers.h"
#include "text/tokenizer/unicode.h"

namespace pmetal::text {

namespace {

// One character and what it is. Behind the end: no classes, no length.
struct Char {
  uint32_t c = 0;
  uint16_t bits = 0;
  size_t end = 0;
};

class Text {
 public:
  explicit Text(std::string_view text) : text_(text) {}
  Char at(size_t position) const {
    if (position >= text_.size()) return {0, 0, position};
    size_t end = position;
    const uint32_t c = next_char(text_, end);
    return {c, classes_(c), end};
  }
  bool is_end(size_t position) const { return position >= text_.size(); }
  // end of the run of characters with any of the classes
  size_t run(size_t position, uint16_t mask) const {
    while (position < text_.size()) {
      const Char c = at(position);
      if (!(c.bits & mask)) break;
      position = c.end;
    }
    return position;
  }
  // the same, at most n characters
  size_t run(size_t position, uint16_t mask, int n) const {
    for (; n > 0 && position < text_.size(); --n) {
      const Char c = at(position);
      if (!(c.bits & mask)) break;
      position = c.end;
    }
    return position;
  }
  // end of the run of characters with none of the classes
  size_t run_without(size_t position, uint16_t mask) const {
    while (position < text_.size()) {
      const Char c = at(position);
      if (c.bits & mask) break;
      position = c.end;
    }
    return position;
  }
  size_t newlines(size_t position, bool and_slashes) const {
    while (position < text_.size() &&
           (text_[position] == '\r' || text_[position] == '\n' || (and_slashes && text_[position] == '/')))
      ++position;
    return position;
  }
  // 's 't 're 've 'm 'll 'd at position; its end, or position
  size_t contraction(size_t position, bool ignore_case) const {
    const std::string_view s = text_.substr(position, 3);
    if (s.size() < 2 || s[0] != '\'') return position;
    const auto fold = [&](char c) { return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; };
    const char first = fold(s[1]), second = s.size() > 2 ? fold(s[2]) : '\0';
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return position + 2;
    if ((first == 'r' || first == 'v') && second == 'e') return position + 3;
    if (first == 'l' && second == 'l') return position + 3;
    if (ignore_case && s.size() == 3 && s.substr(1) == "\xc5\xbf") return position + 3;  // long s folds to s
    return position;
  }
  // \s*[\r\n]+|\s+(?!\S)|\s+ where newlines_first, else the last two; position stands on white space
  size_t white_space(size_t position, bool newlines_first) const {
    size_t end = position, last_start = position, after_newline = 0;
    while (end < text_.size()) {
      const Char c = at(end);
      if (!(c.bits & kSpace)) break;
      if (c.c == '\n' || c.c == '\r') after_newline = c.end;
      last_start = end;
      end = c.end;
    }
    if (newlines_first && after_newline > 0) return after_newline;
    return is_end(end) || last_start == position ? end : last_start;
  }

 private:
  std::string_view text_;
  CharClasses classes_;
};

size_t scan_gpt2(std::string_view s, size_t at) {
  const Text text(s);
  if (const size_t end = text.contraction(at, false); end > at) return end;
  const Char first = text.at(at);
  const size_t start = first.c == ' ' ? first.end : at;
  const Char c = text.at(start);
  if (c.bits & kLetter) return text.run(c.end, kLetter);
  if (c.bits & kNumber) return text.run(c.end, kNumber);
  if (!text.is_end(start) && !(c.bits & kSpace)) return text.run_without(c.end, kSpace | kLetter | kNumber);
  return text.white_space(at, false);
}

// cl100k and its kin. `kWordMask`: what words are made of besides their first character.
template <int kMaxDigits, uint16_t kWordMask>
size_t scan_cl100k(std::string_view s, size_t at) {
  const Text text(s);
  if (const size_t end = text.contraction(at, true); end > at) return end;
  const Char c = text.at(at);
  if (c.bits & kWordMask) return text.run(c.end, kWordMask);
  if (c.bits & kNumber) return text.run(at, kNumber, kMaxDigits);
  if (c.c != '\r' && c.c != '\n')
    if (const Char next = text.at(c.end); next.bits & kWordMask) return text.run(next.end, kWordMask);
  const size_t start = c.c == ' ' ? c.end : at;
  const Char other = text.at(start);
  if (!text.is_end(start) && !(other.bits & (kSpace | kWordMask | kLetter | kNumber)))
    return text.newlines(text.run_without(other.end, kSpace | kWordMask | kLetter | kNumber), false);
  return text.white_space(at, true);
}

constexpr uint16_t kUpperSide = kUpper | kTitle | kModifier | kOtherLetter | kMark;
constexpr uint16_t kLowerSide = kLower | kModifier | kOtherLetter | kMark;

// [upper side]*[lower side]+ ; 0: no match
size_t upper_then_lower(const Text& text, size_t at) {
  size_t end = at, after_shared = 0;  // behind the last character of the run that is on both sides
  for (;;) {
    const Char c = text.at(end);
    if (!(c.bits & kUpperSide)) break;
    end = c.end;
    if (c.bits & kLowerSide) after_shared = end;
  }
  if (text.at(end).bits & kLowerSide) return text.run(end, kLowerSide);
  return after_shared;
}

// [upper side]+[lower side]* ; 0: no match
size_t upper_maybe_lower(const Text& text, size_t at) {
  const size_t end = text.run(at, kUpperSide);
  return end == at ? 0 : text.run(end, kLowerSide);
}

template <int kMaxDigits, bool kContractions>
size_t scan_o200k(std::string_view s, size_t at) {
  const Text text(s);
  const Char c = text.at(at);
  const bool is_word = c.bits & (kLetter | kMark);
  const bool is_prefix = c.c != '\r' && c.c != '\n' && !(c.bits & (kLetter | kNumber));
  size_t end = 0;
  if (is_prefix) end = upper_then_lower(text, c.end);
  if (!end && is_word) end = upper_then_lower(text, at);
  if (!end && is_prefix) end = upper_maybe_lower(text, c.end);
  if (!end && is_word) end = upper_maybe_lower(text, at);
  if (end) return kContractions ? text.contraction(end, true) : end;
  if (c.bits & kNumber) return text.run(at, kNumber, kMaxDigits);
  const size_t start = c.c == ' ' ? c.end : at;
  const Char other = text.at(start);
  if (!text.is_end(start) && !(other.bits & (kSpace | kLetter | kNumber)))
    return text.newlines(text.run_without(other.end, kSpace | kLetter | kNumber), true);
  return text.white_space(at, true);
}

constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekken = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
                                R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
                                R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace

const char* const kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

const std::vector<KnownPattern>& known_patterns() {
  static const std::vector<KnownPattern> patterns{
      {"gpt2", kGpt2Pattern, scan_gpt2},
      {"llama3", kLlama3, scan_cl100k<3, kLetter>},
      {"qwen2", kQwen2Pattern, scan_cl100k<1, kLetter>},
      {"qwen3_5", kQwen35, scan_cl100k<1, kLetter | kMark>},
      {"o200k", kO200k, scan_o200k<3, true>},
      {"tekken", kTekken, scan_o200k<1, false>},
  };
  return patterns;
}

ScanFunction find_scanner(std::string_view pattern) {
  for (const KnownPattern& known : known_patterns())
    if (known.pattern == pattern) return known.scan;
  return nullptr;
}

}  // namespace pmetal::text
