#include "infer/text_stream.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "base/testing.h"

namespace pmetal::infer {
namespace {

using Strings = std::vector<std::string>;

struct Found {
  std::string text;
  std::optional<size_t> stop;
};
Found match(const Strings& stops, const Strings& pieces) {
  StopMatcher m(stops);
  Found f;
  for (const std::string& p : pieces) f.text += m.push(p);
  f.text += m.flush();
  f.stop = m.match();
  return f;
}

TEST(StopMatcher, Holds_back_what_may_begin_a_stop_and_nothing_more) {
  StopMatcher m(Strings{"</answer>", "ab"});
  EXPECT_EQ(m.push("x <"), "x ");
  EXPECT_EQ(m.push("/an"), "");
  EXPECT_EQ(m.push("y"), "</any");
  EXPECT_EQ(m.push("a"), "");
  EXPECT_EQ(m.push("a"), "a");
  EXPECT_EQ(m.push("b more"), "");
  EXPECT_EQ(m.match(), 1u);
  EXPECT_EQ(m.push("never"), "");
  EXPECT_EQ(m.flush(), "");
}

TEST(StopMatcher, A_stop_is_found_however_the_text_is_cut) {
  const std::string text = "so <</answer> and on";
  for (size_t a = 0; a <= text.size(); ++a)
    for (size_t b = a; b <= text.size(); ++b) {
      const Found f = match({"</answer>"}, {text.substr(0, a), text.substr(a, b - a), text.substr(b)});
      EXPECT_EQ(f.text, "so <");
      EXPECT_EQ(f.stop, 0u);
    }
}

TEST(StopMatcher, The_match_that_ends_first_wins_and_then_the_longest) {
  EXPECT_EQ(match({"abcd", "bc"}, {"xabcd"}).stop, 1u);
  EXPECT_EQ(match({"abcd", "bc"}, {"xabcd"}).text, "xa");
  EXPECT_EQ(match({"bc", "abc"}, {"xabcd"}).stop, 1u);
  EXPECT_EQ(match({"bc", "abc"}, {"xabcd"}).text, "x");
}

TEST(StopMatcher, Without_stops_everything_passes) {
  const Found f = match({}, {"a", "", "bc"});
  EXPECT_EQ(f.text, "abc");
  EXPECT_FALSE(f.stop);
}

// random texts over two letters against a search by hand
TEST(StopMatcher, Agrees_with_a_search_of_the_whole_text) {
  PhiloxStream random(1, RngPurpose::kSynthetic);
  const auto word = [&](uint64_t longest) {
    std::string s(1 + random.below(longest), 'a');
    for (char& c : s) c = static_cast<char>('a' + random.below(2));
    return s;
  };
  for (int round = 0; round < 3000; ++round) {
    Strings stops;
    for (uint64_t n = random.below(4); n-- > 0;) stops.push_back(word(5));
    const std::string text = word(20);
    Strings pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t n = 1 + random.below(4);
      pieces.push_back(text.substr(at, n));
      at += n;
    }
    std::string want = text;
    bool found = false;
    for (size_t end = 1; end <= text.size() && !found; ++end) {
      size_t longest = 0;
      for (const std::string& s : stops)
        if (s.size() <= end && text.compare(end - s.size(), s.size(), s) == 0) longest = std::max(longest, s.size());
      found = longest > 0;
      if (found) want = text.substr(0, end - longest);
    }
    const Found got = match(stops, pieces);
    ASSERT_EQ(got.text, want);
    ASSERT_EQ(got.stop.has_value(), found);
  }
}

TEST(TextStream, The_prompt_goes_before_so_a_leading_space_stays) {
  const auto tokenizer =
      text::Tokenizer::from_file(testing_support::data_dir() / "tokenizers" / "sp_llama2" / "tokenizer.json");
  const std::vector<int32_t> ids = tokenizer->encode_ids("the old man and the sea", false);
  ASSERT_GT(ids.size(), 3u);
  for (size_t cut = 1; cut < ids.size(); ++cut) {
    const std::vector<int32_t> prompt(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(cut));
    TextStream stream(*tokenizer, prompt, {}, true);
    std::string text = tokenizer->decode(prompt);
    for (size_t i = cut; i < ids.size(); ++i) text += stream.push(ids[i], true);
    EXPECT_EQ(text + stream.flush(), "the old man and the sea");
  }
}

TEST(TextStream, Characters_come_whole) {
  const auto tokenizer =
      text::Tokenizer::from_file(testing_support::data_dir() / "tokenizers" / "tiny" / "tokenizer.json");
  const std::string want = "a\xE2\x82\xAC\xF0\x9F\x98\x80z";  // euro sign, smiling face
  const std::vector<int32_t> ids = tokenizer->encode_ids(want, false);
  ASSERT_GT(ids.size(), 5u) << "the tokenizer must cut these characters for this test";
  TextStream stream(*tokenizer, {}, {}, true);
  std::string all;
  for (int32_t id : ids) {
    const std::string piece = stream.push(id, true);
    EXPECT_TRUE(piece.empty() || (static_cast<unsigned char>(piece[0]) & 0xC0) != 0x80) << "begins inside a character";
    all += piece;
  }
  EXPECT_EQ(all + stream.flush(), want);
}

}  // namespace
}  // namespace pmetal::infer
