// Added tokens that the normalizer changes. Expected ids: the official library (0.22 where it depends on the order of
// the tokens), through tools/oracle/tokenizers.
#include <gtest/gtest.h>

#include "text/tokenizer/tokenizer.h"

namespace pmetal::text {
namespace {

using Ids = std::vector<int32_t>;

// a normalized token; `flags` are those that are true
std::string added(int id, const std::string& content, const std::string& flags = "") {
  std::string json = R"({"id":)" + std::to_string(id) + R"(,"content":")" + content + R"(","normalized":true)";
  for (const std::string flag : {"single_word", "lstrip", "rstrip", "special"})
    json += ",\"" + flag + (flags.find(flag) == std::string::npos ? "\":false" : "\":true");
  return json + "}";
}

Ids encode(const std::string& normalizer, const std::string& tokens, const std::string& text) {
  const std::string json = R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)" + tokens +
                           R"(],"normalizer":)" + normalizer +
                           R"(,"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
    "model":{"type":"WordLevel","vocab":{"<unk>":0,"a":1,"ab":2},"unk_token":"<unk>"}})";
  return Tokenizer::from_json(json, "tokenizer.json")->encode_ids(text);
}

TEST(AddedTokens, Of_tokens_that_normalize_to_one_text_the_first_special_one_counts) {
  const std::string lowercase = R"({"type":"Lowercase"})";
  EXPECT_EQ(encode(lowercase, added(3, "The") + "," + added(4, "THE"), "the a"), (Ids{3, 1}));
  EXPECT_EQ(encode(lowercase, added(3, "THE") + "," + added(4, "The"), "the a"), (Ids{3, 1}));
  EXPECT_EQ(encode(lowercase, added(3, "THE") + "," + added(4, "The", "special"), "the a"), (Ids{4, 1}));
}

TEST(AddedTokens, One_that_normalizes_to_nothing_cuts_between_all_characters) {
  const std::string drop_spaces = R"({"type":"Replace","pattern":{"Regex":"\\s+"},"content":""})";
  EXPECT_EQ(encode(drop_spaces, added(3, "  "), "abab"), (Ids{1, 0, 1, 0}));
  // longer ones are found where they begin
  EXPECT_EQ(encode(drop_spaces, added(3, "  ") + "," + added(4, "ab"), "aabab"), (Ids{1, 2, 2}));
  EXPECT_EQ(encode(drop_spaces, added(3, "  ") + "," + added(4, "xy"), "axyba"), (Ids{1, 4, 0, 1}));
  // its flags work as those of others do
  const std::string drop_x = R"({"type":"Replace","pattern":{"Regex":"x+"},"content":""})";
  EXPECT_EQ(encode(drop_x, added(3, "x", "rstrip"), "ab  ab"), (Ids{1, 0, 3, 3, 1, 0}));
  EXPECT_EQ(encode(drop_x, added(3, "x", "lstrip"), "ab  ab  "), (Ids{1, 0, 3, 3, 1, 0, 3, 3}));
  EXPECT_EQ(encode(drop_x, added(3, "x", "lstrip, rstrip"), "ab ab"), (Ids{1, 0, 3, 1, 0}));
  EXPECT_EQ(encode(drop_x, added(3, "x", "single_word"), "ab.ab a a"), (Ids{2, 0, 2, 1, 1}));
}

}  // namespace
}  // namespace pmetal::text
