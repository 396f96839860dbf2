#include "text/tokenizer/scanner.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "text/tokenizer/regex.h"
#include "text/tokenizer/unicode.h"

namespace pmetal::text {
namespace {

// Text of every class the patterns tell apart, in random order. Only characters that were assigned by Unicode 10: later
// ones may have another class in PCRE2's data than in ours.
std::string random_text(PhiloxStream& random) {
  static const std::vector<std::string> kParts{
      "a",      "b",      "Z",          "AB",      "ll",     "LL",     "s",      "'",      "'s",     "'S",
      "'LL",    "'re",    "'V",         "'\u017f", "1",      "23",     "\u00b2", "\u0664", " ",      "  ",
      "\n",     "\r",     "\r\n",       "\t",      "\u00a0", "\u0085", "\u2028", "\u180e", ".",      "/",
      "//",     "!?",     "_",          "\u00e9",  "\u00c9", "\u01c5", "\u02b0", "\u6f22", "\u0301", "\u0903",
      "\u20dd", "\u20ac", "\U0001F600", "\u200d",  "\u2160", "\uac00", "\u0000x"};
  std::string text;
  for (uint64_t n = random.below(24); n > 0; --n) text += kParts[random.below(kParts.size())];
  return text;
}

TEST(Scanner, Spans_equal_those_of_PCRE2_for_every_known_pattern) {
  PhiloxStream random(7, RngPurpose::kSynthetic);
  for (const KnownPattern& known : known_patterns()) {
    const Regex regex(std::string(known.pattern), std::string(known.name));
    for (int i = 0; i < 20000; ++i) {
      const std::string text = random_text(random);
      std::vector<size_t> expected, found;
      size_t covered = 0;
      regex.for_each(text, [&](size_t begin, size_t end) {
        ASSERT_EQ(begin, covered) << "the pattern leaves a gap";
        expected.push_back(covered = end);
      });
      for (size_t at = 0; at < text.size();) found.push_back(at = known.scan(text, at));
      ASSERT_EQ(found, expected) << known.name << ": " << text;
    }
  }
}

}  // namespace
}  // namespace pmetal::text
