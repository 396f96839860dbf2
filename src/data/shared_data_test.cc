// The reference data beside the checkout, where it is present: counts stored with the models, packing of real chats.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/testing.h"
#include "data/chat_renderer.h"
#include "data/loader.h"
#include "data/text_encoder.h"

namespace pmetal::data {
namespace {

const fs::path kShared = pmetal::testing_support::shared_dir();

std::shared_ptr<const text::Tokenizer> student_tokenizer() {
  return text::Tokenizer::from_dir(kShared / "models" / "tiny-student");
}

RenderChat student_chat() {
  return make_chat_renderer(std::make_shared<const text::chat::ChatTemplate>(
      text::chat::ChatTemplate::from_model_dir(kShared / "models" / "tiny-student")));
}

TEST(SharedData, The_validation_text_has_the_stored_number_of_tokens) {
  if (kShared.empty()) return;
  const auto evaluation = nlohmann::json::parse(read_text(kShared / "models" / "tiny-student" / "evaluation.json"));
  const ExampleBuilder builder(make_encoder(student_tokenizer(), 0), nullptr, {});
  int64_t tokens = 0;
  for (const auto& e : read_examples(*open_source(kShared / "data" / "val.txt"), {}, builder)) tokens += e.length();
  EXPECT_EQ(tokens, evaluation["val_tokens"].get<int64_t>());
}

TEST(SharedData, Chats_pack_to_98_percent_and_learn_what_the_assistant_said) {
  if (kShared.empty()) return;
  const auto tokenizer = student_tokenizer();
  const ExampleBuilder builder(make_encoder(tokenizer, 0), student_chat(), {});
  const auto examples = read_examples(*open_source(kShared / "data" / "sft.jsonl"), {}, builder);
  EXPECT_EQ(examples.size(), 1700u);
  EXPECT_EQ(builder.counts().dropped_nothing_learned.load(), 0);
  std::vector<int64_t> lengths;
  for (const auto& e : examples) lengths.push_back(e.length());
  const auto bins = pack_best_fit(lengths, 2048);
  const double fill = fill_ratio(lengths, bins, 2048);
  RecordProperty("fill", std::to_string(fill));
  EXPECT_GE(fill, 0.98);
  std::vector<int32_t> learned;
  for (size_t i = 0; i < examples[1].ids.size(); ++i)
    if (examples[1].labels[i] != kIgnore) learned.push_back(examples[1].ids[i]);
  EXPECT_EQ(tokenizer->decode(learned), "26 - 18 = 8\nThe answer is 8.<|im_end|>\n");
}

TEST(SharedData, Every_reference_set_is_read_whole) {
  if (kShared.empty()) return;
  const auto count = [](const char* name, RecordFormat format) {
    const auto source = open_source(kShared / "data" / name);
    RecordParser parser;
    Row row;
    int64_t n = 0;
    while (source->next(row)) {
      EXPECT_EQ(parser.parse(row).format, format);
      ++n;
    }
    return n;
  };
  EXPECT_EQ(count("sft.jsonl", RecordFormat::kMessages), 1700);
  EXPECT_EQ(count("preferences.jsonl", RecordFormat::kPreference), 1200);
  EXPECT_EQ(count("reasoning.jsonl", RecordFormat::kQuestionAnswer), 1500);
}

}  // namespace
}  // namespace pmetal::data
