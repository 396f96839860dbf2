// From records to ids and labels, with a tokenizer of one id per byte.
#include "data/example.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "data/chat_renderer.h"
#include "data/test_support.h"

namespace pmetal::data {
namespace {

using testing_support::byte_encoder;
using testing_support::chatml;
using testing_support::learned_text;
using testing_support::text_of;

Record parse(const std::string& json) {
  RecordParser parser;
  return parser.parse({json, std::make_shared<const std::string>("f.jsonl"), 1});
}
Example build(const std::string& json, ExampleOptions options = {}) {
  return ExampleBuilder(byte_encoder(), chatml(), options).build(parse(json)).value();
}

const char* const kTwoTurns =
    R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"u1"},{"role":"assistant","content":"a1"},{"role":"user","content":"u2"},{"role":"assistant","content":"a2"}]})";

TEST(Example, Text_learns_all_and_ends_with_the_end_token) {
  const auto e = build(R"({"text":"abc"})");
  EXPECT_EQ(text_of(e.ids), "abc$");
  EXPECT_EQ(learned_text(e), "abc$");
  EXPECT_EQ(e.n_learned(), 3);  // nothing predicts the first token
  ExampleOptions options;
  options.append_eos = false;
  EXPECT_EQ(text_of(build(R"({"text":"abc"})", options).ids), "abc");
}

TEST(Example, Chats_learn_all_assistant_turns_or_the_last_or_everything) {
  const std::string whole = "<system>s|<user>u1|<assistant>a1|<user>u2|<assistant>a2|";
  ExampleOptions options;
  EXPECT_EQ(text_of(build(kTwoTurns).ids), whole);
  EXPECT_EQ(learned_text(build(kTwoTurns)), "a1|a2|");
  options.train_on = TrainOn::kLast;
  EXPECT_EQ(learned_text(build(kTwoTurns, options)), "a2|");
  options.train_on = TrainOn::kEverything;
  EXPECT_EQ(learned_text(build(kTwoTurns, options)), whole);
}

TEST(Example, Prompt_messages_are_never_learned_and_completions_are) {
  EXPECT_EQ(
      learned_text(build(
          R"({"prompt":[{"role":"user","content":"u"},{"role":"assistant","content":"x"},{"role":"user","content":"v"}],"completion":[{"role":"assistant","content":"y"}]})")),
      "y|");
  EXPECT_EQ(learned_text(build(R"({"prompt":"pp","completion":"cc"})")), "cc$");
  EXPECT_EQ(text_of(build(R"({"prompt":"pp","completion":"cc"})").ids), "ppcc$");
  EXPECT_EQ(learned_text(build(R"({"instruction":"i","output":"o"})")), "o$");
  EXPECT_EQ(text_of(build(R"({"question":"q","answer":"a"})").ids), "<user>q|<assistant>a|");
}

TEST(Example, Two_turn_formats_become_plain_text_without_a_template_and_chats_are_refused) {
  const ExampleBuilder builder(byte_encoder(), nullptr, {});
  const auto e = builder.build(parse(R"({"question":"q","answer":"a"})")).value();
  EXPECT_EQ(text_of(e.ids), "q\na$");
  EXPECT_EQ(learned_text(e), "a$");
  EXPECT_THROW(builder.build(parse(kTwoTurns)), Error);
}

TEST(Example, A_begin_token_is_not_learned_and_a_present_end_token_is_not_doubled) {
  const ExampleBuilder builder(byte_encoder(true), nullptr, {});
  const auto e = builder.build(parse(R"({"text":"ab"})")).value();
  EXPECT_EQ(e.ids, (std::vector<int32_t>{2, 'a' + 3, 'b' + 3, 1}));
  EXPECT_EQ(e.labels, (std::vector<int32_t>{kIgnore, 'a' + 3, 'b' + 3, 1}));
  Encoder ends = byte_encoder();
  ends.encode = [inner = ends.encode](std::string_view text, bool special) {
    auto out = inner(text, special);
    out.ids.push_back(1);
    out.offsets.push_back({0, 0});
    return out;
  };
  const auto once = ExampleBuilder(ends, nullptr, {}).build(parse(R"({"text":"ab"})")).value();
  EXPECT_EQ(text_of(once.ids), "ab$");
  EXPECT_EQ(learned_text(once), "ab$");
}

TEST(Example, Samples_with_nothing_to_learn_are_dropped_and_counted) {
  const ExampleBuilder builder(byte_encoder(), chatml(), {});
  EXPECT_FALSE(builder.build(parse(R"({"messages":[{"role":"user","content":"u"}]})")));
  EXPECT_FALSE(builder.build(parse(R"({"input_ids":[5,6],"labels":[-100,-100]})")));
  EXPECT_FALSE(builder.build(parse(R"({"input_ids":[5]})")));  // one token predicts nothing
  EXPECT_TRUE(builder.build(parse(R"({"input_ids":[5,6],"labels":[-100,6]})")));
  EXPECT_EQ(builder.counts().dropped_nothing_learned.load(), 3);
  EXPECT_EQ(builder.counts().built.load(), 1);
}

TEST(Example, Long_samples_are_cut_at_the_chosen_end_or_dropped) {
  ExampleOptions options;
  options.max_length = 3;
  EXPECT_EQ(text_of(build(R"({"text":"abcdef"})", options).ids), "abc");
  options.truncation = Truncation::kLeft;
  EXPECT_EQ(text_of(build(R"({"text":"abcdef"})", options).ids), "ef$");
  options.truncation = Truncation::kDrop;
  const ExampleBuilder builder(byte_encoder(), chatml(), options);
  EXPECT_FALSE(builder.build(parse(R"({"text":"abcdef"})")));
  EXPECT_EQ(builder.counts().dropped_too_long.load(), 1);
  options.truncation = Truncation::kRight;
  options.max_length = 12;  // only the prompt is left of the chat
  const ExampleBuilder cut(byte_encoder(), chatml(), options);
  EXPECT_FALSE(cut.build(
      parse(R"({"messages":[{"role":"user","content":"a long question"},{"role":"assistant","content":"a"}]})")));
  EXPECT_EQ(cut.counts().dropped_nothing_learned.load(), 1);
  EXPECT_EQ(cut.counts().truncated.load(), 1);
}

TEST(Example, Preferences_share_the_prompt_and_learn_the_tails) {
  const ExampleBuilder builder(byte_encoder(), chatml(), {});
  const auto text = builder.build_preference(parse(R"({"prompt":"p","chosen":"good","rejected":"bad"})")).value();
  EXPECT_EQ(text_of(text.chosen.ids), "pgood$");
  EXPECT_EQ(learned_text(text.chosen), "good$");
  EXPECT_EQ(learned_text(text.rejected), "bad$");
  const auto chat =
      builder
          .build_preference(parse(
              R"({"prompt":[{"role":"user","content":"u"}],"chosen":[{"role":"assistant","content":"c"}],"rejected":[{"role":"assistant","content":"r"}]})"))
          .value();
  EXPECT_EQ(text_of(chat.chosen.ids), "<user>u|<assistant>c|");
  EXPECT_EQ(learned_text(chat.rejected), "r|");
}

TEST(Example, A_token_across_the_border_of_a_span_counts_as_learned) {
  Encoder pairs;  // two bytes per id
  pairs.encode = [](std::string_view text, bool) {
    EncodedText out;
    for (int64_t i = 0; i < static_cast<int64_t>(text.size()); i += 2) {
      out.ids.push_back(static_cast<int32_t>(i));
      out.offsets.push_back({i, std::min<int64_t>(i + 2, static_cast<int64_t>(text.size()))});
    }
    return out;
  };
  const auto e = ExampleBuilder(pairs, nullptr, {}).build(parse(R"({"prompt":"abc","completion":"def"})")).value();
  EXPECT_EQ(e.labels, (std::vector<int32_t>{kIgnore, 2, 4}));
}

// a template of its own, rendered by the real interpreter
RenderChat jinja_chat(std::string_view source, TrainOn train_on = TrainOn::kAll) {
  return make_chat_renderer(std::make_shared<const text::chat::ChatTemplate>(
                                text::chat::ChatTemplate::from_source(source, "test.jinja", text::jinja::Value())),
                            train_on);
}

TEST(Example, Real_templates_mark_turns_by_prefix_or_by_generation_blocks) {
  const std::string plain =
      "{% for m in messages %}[{{ m.role }}]{{ m.content }};{% endfor %}"
      "{% if add_generation_prompt %}[assistant]{% endif %}";
  const std::string marked =
      "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% generation %}{{ m.content }};"
      "{% endgeneration %}{% else %}{{ m.content }};{% endif %}{% endfor %}";
  for (const auto& source : {plain, marked}) {
    for (const auto& [train_on, learned] :
         {std::pair{TrainOn::kAll, "a1;a2;"}, std::pair{TrainOn::kLast, "a2;"},
          std::pair{TrainOn::kEverything, "[system]s;[user]u1;[assistant]a1;[user]u2;[assistant]a2;"}}) {
      ExampleOptions options;
      options.train_on = train_on;
      const ExampleBuilder builder(byte_encoder(), jinja_chat(source, train_on), options);
      EXPECT_EQ(learned_text(builder.build(parse(kTwoTurns)).value()), learned);
    }
    const ExampleBuilder builder(byte_encoder(), jinja_chat(source), {});
    EXPECT_EQ(
        learned_text(
            builder
                .build(parse(
                    R"({"prompt":[{"role":"user","content":"u"},{"role":"assistant","content":"x"},{"role":"user","content":"v"}],"completion":[{"role":"assistant","content":"y"}]})"))
                .value()),
        "y;");
  }
}

TEST(Example, Errors_of_a_template_name_the_row) {
  const ExampleBuilder builder(byte_encoder(), jinja_chat("{{ raise_exception('no system role') }}"), {});
  try {
    builder.build(parse(kTwoTurns));
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), ::testing::AllOf(::testing::HasSubstr("f.jsonl:1"), ::testing::HasSubstr("no system role")));
  }
}

}  // namespace
}  // namespace pmetal::data
