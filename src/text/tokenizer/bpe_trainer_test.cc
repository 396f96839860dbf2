#include "text/tokenizer/bpe_trainer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/tokenizer/tokenizer.h"

namespace pmetal::text {
namespace {

// Merges by hand from the counts: "low" 5, "lower" 2, "newest" 6, "widest" 3 (the example of Sennrich et al. 2016,
// without its end-of-word mark; words carry their leading space).
TEST(BpeTrainer, Example_of_the_paper) {
  BpeTrainer trainer({.vocab_size = 256 + 4, .special_tokens = {}, .min_frequency = 2});
  std::string text;
  const auto repeat = [&](const char* word, int n) {
    for (int i = 0; i < n; ++i) text += std::string(" ") + word;
  };
  repeat("low", 5);
  repeat("lower", 2);
  repeat("newest", 6);
  repeat("widest", 3);
  trainer.add(text);
  const auto file = nlohmann::json::parse(trainer.finish());
  // e-s 9 and s-t 9 tie: "e" has the lower id; then es-t 9; then (l,o), (o,w), (space,l) 7 tie: l-o has the lowest
  // ids; then space-lo and lo-w 7 tie: a byte has a lower id than a merge
  const auto expected = nlohmann::json::parse(R"([["e","s"],["es","t"],["l","o"],["Ġ","lo"]])");
  EXPECT_EQ(file["model"]["merges"], expected);
}

TEST(BpeTrainer, The_file_loads_and_decodes_what_it_encodes) {
  BpeTrainer trainer({.vocab_size = 400, .special_tokens = {"<|end|>", "<|pad|>"}, .min_frequency = 2});
  const std::string text = "The quick brown fox jumps over the lazy dog. The dog sleeps; the fox doesn't.\n\n";
  for (int i = 0; i < 20; ++i) trainer.add(text);
  const std::string file = trainer.finish();
  const auto tokenizer = Tokenizer::from_json(file, "trained");
  EXPECT_LE(tokenizer->vocab_size(), 400);
  EXPECT_GT(tokenizer->vocab_size(), 300);
  EXPECT_EQ(tokenizer->token_to_id("<|end|>"), 0);
  EXPECT_TRUE(tokenizer->is_special(1));
  const auto ids = tokenizer->encode_ids(text + "<|end|>\xf0\x9f\x98\x80");
  EXPECT_LT(ids.size(), text.size() / 3);
  EXPECT_EQ(tokenizer->decode(ids, false), text + "<|end|>\xf0\x9f\x98\x80");

  BpeTrainer again({.vocab_size = 400, .special_tokens = {"<|end|>", "<|pad|>"}, .min_frequency = 2});
  for (int i = 0; i < 20; ++i) again.add(text);
  EXPECT_EQ(again.finish(), file) << "training is not deterministic";
}

TEST(BpeTrainer, Refuses_a_vocabulary_without_room_and_text_that_is_not_utf8) {
  EXPECT_THROW(BpeTrainer({.vocab_size = 256, .special_tokens = {"<s>"}, .min_frequency = 2}), Error);
  BpeTrainer trainer({.vocab_size = 300, .special_tokens = {}, .min_frequency = 2});
  EXPECT_THROW(trainer.add("\xff"), Error);
}

}  // namespace
}  // namespace pmetal::text
