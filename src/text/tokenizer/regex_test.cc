// Expected matches: what Split with behavior "Isolated" cuts in the official `tokenizers` library 0.23.2.
#include "text/tokenizer/regex.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace pmetal::text {
namespace {

std::string matches(const std::string& pattern, std::string_view text) {
  std::string out;
  Regex(pattern, "test").for_each(text, [&](size_t begin, size_t end) {
    out.append("|").append(text.substr(begin, end - begin));
  });
  return out;
}

TEST(Regex, is_read_as_oniguruma_reads_it) {
  const struct {
    const char *pattern, *text, *found;
  } cases[] = {
      {R"(\d{1,3}+)", "12345678", "|12345678"},  // no possessive quantifier
      {R"(a{,2}b)", "aaab b", "|aab|b"},
      {R"(a{2}?b)", "aab b", "|aab|b"},
      {R"((ab){2}+)", "ababababab", "|abababab"},
      {R"(é{2}+)", "éééé", "|éééé"},
      {R"(a{)", "aa{", "|a{"},
      {R"(a++b)", "aaab", "|aaab"},
      {R"(e\u0301?)", "e\u0301e", "|e\u0301|e"},
      {R"([\u4e00-\u9fa5]+)", "ab漢字c", "|漢字"},
      {R"(\b\w)", "a \u0301b", "|a|\u0301"},  // a mark is a word character
      {R"([[:alpha:]]+)", "ab1é", "|ab|é"},
      {R"([[:punct:]]+)", "a+b!€", "|+|!€"},
      {R"([^[:^alpha:]]+)", "ab1", "|ab"},
      {R"(\p{Punct}+)", "a+b!€", "|!"},
      {R"(\p{Alnum}+)", "a1-²", "|a1"},
      {R"([a-z&&[^aeiou]]+)", "hello", "|h|ll"},
      {R"([a-z&&b-d]+)", "abcde", "|bcd"},
      {R"([^a-z&&[^A-Z]]+)", "aB1", "|B1"},
      {R"([^\W\d_]+)", "ab_1c", "|ab|c"},
      {R"([a[^b]]+)", "abc", "|a|c"},
      {R"([a-c[x-z]]+)", "axmz", "|ax|z"},
      {R"([]a]+)", "a]b", "|a]"},
      {R"([a^]+)", "a^b", "|a^"},
      {R"(\v)", "a\n\vb", "|\v"},
      {R"((?m).+)", "a\nb", "|a\nb"},
      {R"(^a)", "a\na", "|a|a"},
      {R"(\p{Mn})", "\u0301\U0001171e", "|\u0301"},  // moved to Mc by Unicode 16
      {R"(\p{Cn})", "\U0001e4ff\U0001e030", "|\U0001e4ff"},
      {R"(\QaE)", "QaE", "|QaE"},
  };
  for (const auto& c : cases) EXPECT_EQ(matches(c.pattern, c.text), c.found) << c.pattern;
}

TEST(Regex, what_has_no_equal_is_refused) {
  for (const char* pattern :
       {R"((?~ab))", R"(\y)", R"(\u12)", R"([a)", R"([[:none:]])", R"(\p{None}))", "[]", "(", "\\"})
    EXPECT_THROW(Regex(pattern, "test"), Error) << pattern;
}

}  // namespace
}  // namespace pmetal::text
