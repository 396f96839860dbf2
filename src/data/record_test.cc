// Record formats: what each layout becomes, and what an error names.
#include "data/record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace pmetal::data {
namespace {

Record parse(const std::string& json, ColumnFlags flags = {}) {
  RecordParser parser(std::move(flags));
  return parser.parse({json, std::make_shared<const std::string>("f.jsonl"), 7});
}
std::string message(const std::string& json, ColumnFlags flags = {}) {
  try {
    parse(json, std::move(flags));
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Record, Every_format_is_told_by_its_columns) {
  const auto name = [](const std::string& json) { return std::string(name_of(parse(json).format)); };
  EXPECT_EQ(name(R"({"text":"t","instruction":"i"})"), "text");
  EXPECT_EQ(name(R"({"instruction":"i","output":"o"})"), "alpaca");
  EXPECT_EQ(name(R"({"conversations":[{"from":"human","value":"h"}]})"), "sharegpt");
  EXPECT_EQ(name(R"({"messages":[{"role":"user","content":"c"}]})"), "messages");
  EXPECT_EQ(name(R"({"problem":"p","solution":"s"})"), "reasoning");
  EXPECT_EQ(name(R"({"prompt":"p","chosen":"c","rejected":"r"})"), "preference");
  EXPECT_EQ(name(R"({"prompt":"p","completion":"c"})"), "prompt-completion");
  EXPECT_EQ(name(R"({"question":"q","answer":"a"})"), "question-answer");
  EXPECT_EQ(name(R"({"input":"i","output":"o"})"), "input-output");
  EXPECT_EQ(name(R"({"input_ids":[1,2]})"), "tokens");
  EXPECT_EQ(name(R"({"content":"c","id":3})"), "text");
}

TEST(Record, Alpaca_has_its_headings_and_leaves_out_an_empty_input) {
  const auto with = parse(R"({"instruction":"Do.","input":"x","output":"y"})");
  EXPECT_EQ(with.prompt, "### Instruction:\nDo.\n\n### Input:\nx\n\n### Response:\n");
  EXPECT_EQ(with.completion, "y");
  EXPECT_EQ(parse(R"({"instruction":"Do.","input":"","output":"y"})").prompt,
            "### Instruction:\nDo.\n\n### Response:\n");
}

TEST(Record, Sharegpt_speakers_become_roles) {
  const auto r = parse(
      R"({"conversations":[{"from":"system","value":"s"},{"from":"human","value":"\"h\""},{"from":"gpt","value":"g"}]})");
  EXPECT_EQ(
      r.messages,
      R"([{"role":"system","content":"s"},{"role":"user","content":"\"h\""},{"role":"assistant","content":"g"}])");
  EXPECT_THAT(message(R"({"conversations":[{"from":"alien","value":"v"}]})"),
              ::testing::AllOf(::testing::HasSubstr("f.jsonl:7"), ::testing::HasSubstr("conversations[0].from"),
                               ::testing::HasSubstr("alien")));
}

TEST(Record, Messages_pass_through_with_everything_they_carry) {
  const auto r = parse(
      R"({"messages":[{"role":"user","content":"c"},{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]}],"tools":"[{\"name\":\"f\"}]"})");
  EXPECT_EQ(
      r.messages,
      R"([{"role":"user","content":"c"},{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]}])");
  EXPECT_EQ(r.tools, R"([{"name":"f"}])");
  EXPECT_EQ(parse(R"({"messages":[{"role":"user","content":"c"}],"tools":[{"name":"g"}]})").tools, R"([{"name":"g"}])");
  EXPECT_EQ(parse(R"({"messages":[{"role":"user","content":"c"}],"tools":[]})").tools, "");
}

TEST(Record, Lists_of_turns_may_be_their_json_text_as_in_csv_files) {
  EXPECT_EQ(parse(R"({"messages":"[{\"role\":\"user\",\"content\":\"c\"}]","tools":"[]"})").messages,
            R"([{"role":"user","content":"c"}])");
  EXPECT_EQ(parse(R"({"conversations":"[{\"from\":\"human\",\"value\":\"c\"}]","tools":""})").messages,
            R"([{"role":"user","content":"c"}])");
  EXPECT_THAT(message(R"({"conversations":"{}"})"), ::testing::HasSubstr("f.jsonl:7: field \"conversations\""));
  EXPECT_THAT(message(R"({"messages":"[{\"role\":3}]"})"), ::testing::HasSubstr("messages[0].role"));
}

TEST(Record, Reasoning_wraps_the_thoughts) {
  EXPECT_EQ(parse(R"({"problem":"p","thinking":"t","solution":"s"})").completion, "<think>\nt\n</think>\n\ns");
  EXPECT_EQ(parse(R"({"problem":"p","solution":"s"})").completion, "s");
}

TEST(Record, Preferences_take_text_message_lists_and_whole_conversations) {
  const auto text = parse(R"({"prompt":"p","chosen":"c","rejected":"r"})");
  EXPECT_EQ(text.prompt + text.chosen + text.rejected, "pcr");
  const std::string u = R"({"role":"user","content":"u"})", a = R"({"role":"assistant","content":"a"})",
                    b = R"({"role":"assistant","content":"b"})";
  const auto lists = parse(R"({"prompt":[)" + u + R"(],"chosen":[)" + a + R"(],"rejected":[)" + b + "]}");
  const auto whole = parse(R"({"chosen":[)" + u + "," + a + R"(],"rejected":[)" + u + "," + b + "]}");
  for (const auto& r : {lists, whole}) {
    EXPECT_EQ(r.messages, "[" + u + "]");
    EXPECT_EQ(r.chosen, "[" + a + "]");
    EXPECT_EQ(r.rejected, "[" + b + "]");
    EXPECT_EQ(r.prompt_messages, 1);
  }
}

TEST(Record, Column_flags_come_first) {
  ColumnFlags flags;
  flags.text_columns = {"a", "b"};
  EXPECT_EQ(parse(R"({"text":"t","a":"x","b":3})", flags).text, "x\n\n3");
  flags = {};
  flags.prompt_column = "q";
  flags.response_column = "r";
  const auto r = parse(R"({"text":"t","q":"x","r":"y"})", flags);
  EXPECT_EQ(r.messages, R"([{"role":"user","content":"x"},{"role":"assistant","content":"y"}])");
  flags = {};
  flags.text_column = "body";
  EXPECT_THAT(message(R"({"text":"t","id":1})", flags),
              ::testing::HasSubstr("no field \"body\"; the columns are text, id"));
}

TEST(Record, Errors_name_file_line_and_field) {
  using ::testing::HasSubstr;
  EXPECT_THAT(message("{\"text\": "), ::testing::AllOf(HasSubstr("f.jsonl:7"), HasSubstr("JSON")));
  EXPECT_THAT(message("[1]"), HasSubstr("must be an object"));
  EXPECT_THAT(message(R"({"x":1,"y":2})"), HasSubstr("the columns x, y"));
  EXPECT_THAT(message(R"({"text":[1]})"), HasSubstr("field \"text\" must be text, it is a list"));
  EXPECT_THAT(message(R"({"text":null})"), HasSubstr("it is null"));
  EXPECT_THAT(message(R"({"messages":[{"role":"user","content":"c"},{"content":"d"}]})"),
              HasSubstr("messages[1].role"));
  EXPECT_THAT(message(R"({"messages":[{"role":"user"}]})"), HasSubstr("messages[0].content"));
  EXPECT_THAT(message(R"({"messages":[]})"), HasSubstr("empty list"));
  EXPECT_THAT(message(R"({"messages":"x"})"), HasSubstr("must be a list, it is text that"));
  EXPECT_THAT(message(R"({"input_ids":[1,-2]})"), HasSubstr("input_ids[1]"));
  EXPECT_THAT(message(R"({"input_ids":[1,2],"labels":[1]})"), HasSubstr("1 labels for 2"));
  EXPECT_THAT(message(R"({"messages":[{"role":"user","content":"c"}],"tools":"{"})"), HasSubstr("\"tools\""));
}

TEST(Record, What_Python_reads_is_read) {
  EXPECT_EQ(parse(R"({"text":"a","text":"b"})").text, "b");
  EXPECT_EQ(parse(R"({"text":"a","id":123456789012345678901234567890,"x":NaN,"y":-Infinity})").text, "a");
  EXPECT_THAT(message(R"({"text":"a",})"), ::testing::HasSubstr("f.jsonl:7: not valid JSON: at character 13: "));
}

TEST(Record, The_answer_column_is_kept_for_exact_match) {
  EXPECT_EQ(parse(R"({"messages":[{"role":"user","content":"c"}],"answer":"42"})").answer, "42");
  EXPECT_EQ(parse(R"({"prompt":"p","answer":8})").answer, "8");
}

}  // namespace
}  // namespace pmetal::data
