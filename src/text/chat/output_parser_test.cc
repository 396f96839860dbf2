// Each format: what it reads, and that reading does not depend on how the text was cut. The texts follow the formats'
// descriptions by their publishers.
#include "text/chat/output_parser.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/testing.h"
#include "text/chat/family.h"
#include "text/template/json.h"

namespace pmetal::text::chat {
namespace {

const char* const kTools = R"([
  {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {
     "city": {"type": "string"}, "days": {"type": "integer"}, "exact": {"type": "boolean"}, "where": {"type": "object"},
     "any": {"type": ["integer", "string"]}, "list": {"type": "array"}}}}},
  {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {
     "a": {"type": "number"}, "b": {"type": "number"}}}}}])";

ParserOptions options() { return {.tools = jinja::parse_json(kTools)}; }

struct Case {
  const char* parser;
  std::string text;
  std::string content;
  std::string reasoning;
  std::vector<ParsedCall> calls;  // an empty id is not compared
};

ParsedOutput parse(const ParserSpec& spec, const ParserOptions& o, const std::vector<std::string_view>& pieces) {
  const auto parser = make_parser(spec, o);
  std::vector<OutputEvent> events;
  for (const std::string_view piece : pieces) parser->feed(piece, events);
  parser->finish(events);
  // starts, arguments and ends are in order and of the same call
  int open = -1, next = 0;
  for (const OutputEvent& e : events) {
    if (e.kind == OutputEvent::kToolStart) {
      EXPECT_EQ(open, -1);
      EXPECT_EQ(e.call, next++);
      open = e.call;
    } else if (e.kind == OutputEvent::kToolArguments || e.kind == OutputEvent::kToolEnd) {
      EXPECT_EQ(e.call, open);
      if (e.kind == OutputEvent::kToolEnd) open = -1;
    }
  }
  EXPECT_EQ(open, -1);
  return collect(events);
}

// every way of cutting gives `whole`; whatever is cut off, arguments parse
void check_cuts(const ParserSpec& spec, const ParserOptions& o, const std::string& text, const ParsedOutput& whole) {
  std::vector<std::string_view> bytes;
  for (size_t i = 0; i < text.size(); ++i) bytes.push_back(std::string_view(text).substr(i, 1));
  EXPECT_EQ(parse(spec, o, bytes), whole);
  for (size_t i = 0; i <= text.size(); ++i) {
    EXPECT_EQ(parse(spec, o, {std::string_view(text).substr(0, i), std::string_view(text).substr(i)}), whole) << i;
    const ParsedOutput cut = parse(spec, o, {std::string_view(text).substr(0, i)});
    for (const ParsedCall& call : cut.calls)
      EXPECT_NO_THROW((void)jinja::parse_json(call.arguments)) << i << ": " << call.arguments;
  }
}

void check(const Case& c, const ParserOptions& o = options()) {
  SCOPED_TRACE(std::string(c.parser) + ": " + c.text);
  const ParserSpec* spec = find_parser(c.parser);
  ASSERT_NE(spec, nullptr);
  const ParsedOutput got = parse(*spec, o, {c.text});
  EXPECT_EQ(got.content, c.content);
  EXPECT_EQ(got.reasoning, c.reasoning);
  ASSERT_EQ(got.calls.size(), c.calls.size());
  for (size_t i = 0; i < got.calls.size(); ++i) {
    EXPECT_EQ(got.calls[i].name, c.calls[i].name);
    EXPECT_EQ(got.calls[i].arguments, c.calls[i].arguments);
    EXPECT_FALSE(got.calls[i].id.empty());
    if (!c.calls[i].id.empty()) {
      EXPECT_EQ(got.calls[i].id, c.calls[i].id);
    }
  }
  check_cuts(*spec, o, c.text, got);
}

const ParsedCall kParis{"", "get_weather", R"({"city": "Paris"})"};
const ParsedCall kAdd{"", "add", R"({"a": 1, "b": 2.5})"};

TEST(OutputParser, one_call_of_each_format) {
  const Case cases[] = {
      {"hermes",
       "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>",
       "",
       "",
       {kParis}},
      {"qwen3_coder",
       "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
       "",
       "",
       {kParis}},
      {"llama3", "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}<|eom_id|>", "", "", {kParis}},
      {"llama3", "<|python_tag|>{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}", "", "", {kParis}},
      {"pythonic", "[get_weather(city=\"Paris\")]", "", "", {kParis}},
      {"lfm2", "<|tool_call_start|>[get_weather(city='Paris')]<|tool_call_end|>", "", "", {kParis}},
      {"mistral", "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Paris\"}", "", "", {kParis}},
      {"mistral",
       "[TOOL_CALLS]get_weather[CALL_ID]abc123def[ARGS]{\"city\": \"Paris\"}",
       "",
       "",
       {{"abc123def", "get_weather", R"({"city": "Paris"})"}}},
      {"mistral",
       "[TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}, \"id\": \"x12345678\"}]",
       "",
       "",
       {kParis}},
      {"deepseek_v3",
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\": "
       "\"Paris\"}\n```"
       "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
       "",
       "",
       {kParis}},
      {"deepseek_v31",
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": \"Paris\"}<｜tool▁call▁end｜>"
       "<｜tool▁calls▁end｜>",
       "",
       "",
       {kParis}},
      {"deepseek_v32",
       "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"get_weather\">\n<｜DSML｜parameter name=\"city\" "
       "string=\"true\">Paris"
       "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
       "",
       "",
       {kParis}},
      {"gpt_oss",
       "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"Paris\"}<|call|>",
       "",
       "",
       {kParis}},
      {"gpt_oss",
       " to=functions.get_weather<|channel|>commentary json<|message|>{\"city\": \"Paris\"}<|call|>",
       "",
       "",
       {kParis}},
      {"glm45",
       "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>",
       "",
       "",
       {kParis}},
      {"glm45",
       "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>",
       "",
       "",
       {kParis}},
      {"kimi_k2",
       "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{\"city\": "
       "\"Paris\"}"
       "<|tool_call_end|><|tool_calls_section_end|>",
       "",
       "",
       {{"functions.get_weather:0", "get_weather", R"({"city": "Paris"})"}}},
      {"gemma4", "<|tool_call>call:get_weather{city:<|\"|>Paris<|\"|>}<tool_call|>", "", "", {kParis}},
      {"cohere",
       "<|START_ACTION|>[{\"tool_call_id\": \"0\", \"tool_name\": \"get_weather\", \"parameters\": {\"city\": "
       "\"Paris\"}}]"
       "<|END_ACTION|>",
       "",
       "",
       {{"0", "get_weather", R"({"city": "Paris"})"}}},
      {"minimax_m2",
       "<minimax:tool_call>\n<invoke name=\"get_weather\">\n<parameter name=\"city\">Paris</parameter>\n</invoke>\n"
       "</minimax:tool_call>",
       "",
       "",
       {kParis}},
      {"granite3",
       "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}]",
       "",
       "",
       {kParis}},
      {"functools", "functools[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}]", "", "", {kParis}},
      {"nemotron",
       "<TOOLCALL>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}]</TOOLCALL>",
       "",
       "",
       {kParis}},
      {"jamba",
       "<tool_calls>[\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n]</tool_calls>",
       "",
       "",
       {kParis}},
      {"seed_oss",
       "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n</function>\n</seed:tool_call>",
       "",
       "",
       {kParis}}};
  for (const Case& c : cases) check(c);
}

TEST(OutputParser, several_calls_with_text_before_them) {
  const std::string a = "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}",
                    b = "{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": 2.5}}";
  const Case cases[] = {
      {"hermes",
       "Let me see.\n<tool_call>\n" + a + "\n</tool_call>\n<tool_call>\n" + b + "\n</tool_call>\n",
       "Let me see.\n",
       "",
       {kParis, kAdd}},
      {"granite3", "Sure.<|tool_call|>[" + a + ", " + b + "]", "Sure.", "", {kParis, kAdd}},
      {"llama3",
       "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}; {\"name\": \"add\", \"parameters\": "
       "{\"a\": 1, \"b\": 2.5}}",
       "",
       "",
       {kParis, kAdd}},
      {"mistral",
       "Hm.[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Paris\"}[TOOL_CALLS]add[ARGS]{\"a\": 1, \"b\": 2.5}",
       "Hm.",
       "",
       {kParis, kAdd}},
      {"mistral", "[TOOL_CALLS][" + a + "," + b + "]", "", "", {kParis, kAdd}},
      {"pythonic", "[get_weather(city=\"Paris\"), add(a=1, b=2.5)]", "", "", {kParis, kAdd}},
      {"glm45",
       "Ok\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</"
       "tool_call>\n<tool_call>add\n"
       "<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key>\n<arg_value>2.5</arg_value>\n</tool_call>",
       "Ok\n",
       "",
       {kParis, kAdd}},
      {"deepseek_v31",
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": \"Paris\"}<｜tool▁call▁end｜>"
       "<｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 1, \"b\": 2.5}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
       "",
       "",
       {kParis, kAdd}},
      {"gemma4",
       "<|tool_call>call:get_weather{city:<|\"|>Paris<|\"|>}<tool_call|><|tool_call>call:add{a:1,b:2.5}<tool_call|>",
       "",
       "",
       {kParis, kAdd}},
      {"minimax_m2",
       "<minimax:tool_call><invoke name=\"get_weather\"><parameter name=\"city\">Paris</parameter></invoke><invoke "
       "name=\"add\">"
       "<parameter name=\"a\">1</parameter><parameter name=\"b\">2.5</parameter></invoke></minimax:tool_call>",
       "",
       "",
       {kParis, kAdd}}};
  for (const Case& c : cases) check(c);
}

TEST(OutputParser, reasoning_is_split_off) {
  const Case cases[] = {
      {"plain", "<think>\nwhy\nnot\n</think>\n\nBecause.", "Because.", "why\nnot", {}},
      {"plain", "no <think>tag</think> inside", "no <think>tag</think> inside", "", {}},
      {"plain", "<think>never closed", "", "never closed", {}},
      {"plain", "a < b", "a < b", "", {}},
      {"hermes",
       "<think>\nhm\n</think>\n\nOk.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": "
       "\"Paris\"}}\n</tool_call>",
       "Ok.\n",
       "hm",
       {kParis}},
      {"mistral", "[THINK]hm[/THINK]Yes", "Yes", "hm", {}},
      {"gemma4", "<|channel>thought\nhm<channel|>Yes", "Yes", "hm", {}},
      {"cohere", "<|START_THINKING|>hm<|END_THINKING|>Yes", "Yes", "hm", {}},
      {"gpt_oss",
       "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes<|return|>",
       "Yes",
       "hm",
       {}},
      {"gpt_oss",
       "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.add "
       "<|constrain|>json<|message|>"
       "{\"a\": 1, \"b\": 2.5}<|call|>",
       "",
       "hm",
       {kAdd}},
      {"gpt_oss", "plain words", "plain words", "", {}}};
  for (const Case& c : cases) check(c);
  ParserOptions opened = options();
  opened.starts_in_reasoning = true;
  check({"hermes", "\nhm\n</think>\n\nYes", "Yes", "hm", {}}, opened);
  EXPECT_TRUE(prompt_opens_reasoning(*find_parser("hermes"), "<|im_start|>assistant\n<think>\n"));
  EXPECT_FALSE(prompt_opens_reasoning(*find_parser("hermes"), "<|im_start|>assistant\n<think>\n\n</think>\n\n"));
}

TEST(OutputParser, what_is_no_call_is_content) {
  const std::string unknown = "<tool_call>\n{\"name\": \"nope\", \"arguments\": {}}\n</tool_call>";
  const Case cases[] = {
      {"hermes", unknown, unknown, "", {}},
      {"hermes", "<tool_call>\nnot json\n</tool_call>", "<tool_call>\nnot json\n</tool_call>", "", {}},
      {"hermes", "<tool_call>\n{\"name\": \"add\"", "<tool_call>\n{\"name\": \"add\"", "", {}},
      {"hermes", "a <tool_cal", "a <tool_cal", "", {}},
      {"llama3", "{\"just\": \"json\"}", "{\"just\": \"json\"}", "", {}},
      {"pythonic", "[1, 2, 3] is a list", "[1, 2, 3] is a list", "", {}},
      {"pythonic", "[see(here)](link)", "[see(here)](link)", "", {}},
      {"mistral", "[TOOL_CALLS]nope[ARGS]{}", "[TOOL_CALLS]nope[ARGS]{}", "", {}},
      {"glm45", "<tool_call>nope\n</tool_call>", "<tool_call>nope\n</tool_call>", "", {}},
      {"gemma4", "<|tool_call>nonsense<tool_call|>", "<|tool_call>nonsense<tool_call|>", "", {}}};
  for (const Case& c : cases) check(c);
  ParserOptions none = options();
  none.calls_enabled = false;
  const std::string call = "<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>";
  check({"hermes", call, call, "", {}}, none);
  check({"hermes", call, call, "", {}}, ParserOptions());
}

TEST(OutputParser, arguments_that_break_off_are_closed) {
  const Case cases[] = {{"hermes",
                         "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": 2",
                         "",
                         "",
                         {{"", "add", "{\"a\": 1}"}}},
                        {"hermes",
                         "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Par",
                         "",
                         "",
                         {{"", "get_weather", "{\"city\": \"Par\"}"}}},
                        {"hermes",
                         "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"P\\u00",
                         "",
                         "",
                         {{"", "get_weather", "{\"city\": \"P\"}"}}},
                        {"hermes",
                         "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"where\": {\"x\": [1, {\"y\": tr",
                         "",
                         "",
                         {{"", "get_weather", "{\"where\": {\"x\": [1, {}]}}"}}}};
  for (const Case& c : cases) check(c);
}

TEST(OutputParser, tagged_values_follow_the_schema) {
  check({"qwen3_coder",
         "<tool_call>\n<function=get_weather>\n<parameter=city>\n12\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
         "<parameter=exact>\ntrue\n</parameter>\n<parameter=where>\n{\"lat\": "
         "1.5}\n</parameter>\n<parameter=any>\nx\n</parameter>\n"
         "<parameter=list>\n[1, \"a\"]\n</parameter>\n</function>\n</tool_call>",
         "",
         "",
         {{"", "get_weather",
           R"({"city": "12", "days": 3, "exact": true, "where": {"lat": 1.5}, "any": "x", "list": [1, "a"]})"}}});
  check({"qwen3_coder",
         "<tool_call>\n<function=get_weather>\n<parameter=days>\nmany\n</parameter>\n<parameter=city>\nline "
         "\"one\"\n<two>\n</parameter>\n"
         "</function>\n</tool_call>",
         "",
         "",
         {{"", "get_weather", "{\"days\": \"many\", \"city\": \"line \\\"one\\\"\\n<two>\"}"}}});
  check({"deepseek_v32",
         "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"add\">\n<｜DSML｜parameter name=\"a\" "
         "string=\"false\">1</｜DSML｜parameter>\n"
         "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
         "",
         "",
         {{"", "add", "{\"a\": 1}"}}});
}

TEST(OutputParser, text_of_all_kinds_survives_inside_arguments) {
  check({"hermes",
         "<tool_call>{\"arguments\": {\"city\": \"Zürich </tool_call> \\\"x\\\" \\ud83d\\ude00 你好\", \"where\": "
         "{\"a\": [null, -1.5e3]}}, "
         "\"name\": \"get_weather\"}</tool_call>",
         "",
         "",
         {{"", "get_weather",
           "{\"city\": \"Zürich </tool_call> \\\"x\\\" \\ud83d\\ude00 你好\", \"where\": {\"a\": [null, -1.5e3]}}"}}});
  check({"pythonic",
         "[get_weather(city=\"it's [x](y), ok\", where={'a': [1, None, True]}, days=-3)]",
         "",
         "",
         {{"", "get_weather", R"({"city": "it's [x](y), ok", "where": {"a": [1, null, true]}, "days": -3})"}}});
  check({"gemma4",
         "<|tool_call>call:get_weather{city:<|\"|>a<tool_call|>b<|\"|>,list:[1,<|\"|>x<|\"|>],where:{k:true}}<tool_"
         "call|>",
         "",
         "",
         {{"", "get_weather", R"({"city": "a<tool_call|>b", "list": [1, "x"], "where": {"k": true}})"}}});
}

TEST(OutputParser, every_family_names_a_parser_and_templates_tell_theirs) {
  for (const Family* family : all_families()) EXPECT_NE(find_parser(family->parser), nullptr) << family->name;
  const std::pair<const char*, const char*> cases[] = {{"Qwen-Qwen3-0.6B", "hermes"},
                                                       {"Kimi-K2-Thinking", "kimi_k2"},
                                                       {"GLM-4.7-Flash", "glm45"},
                                                       {"MiniMax-M2", "minimax_m2"},
                                                       {"openai-gpt-oss-120b", "gpt_oss"},
                                                       {"deepseek-ai-DeepSeek-V3.1", "deepseek_v31"},
                                                       {"google-gemma-4-31B-it-interleaved", "gemma4"},
                                                       {"microsoft-Phi-3.5-mini-instruct", "plain"}};
  for (const auto& [file, parser] : cases)
    EXPECT_STREQ(
        parser_for_template(read_text(testing_support::data_dir() / "templates" / (std::string(file) + ".jinja"))).name,
        parser)
        << file;
}

}  // namespace
}  // namespace pmetal::text::chat
