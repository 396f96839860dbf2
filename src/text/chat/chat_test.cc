#include "text/chat/chat.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"
#include "base/file.h"
#include "base/testing.h"
#include "text/chat/render_lines.h"
#include "text/template/json.h"

namespace pmetal::text::chat {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> pieces(const Trained& t) {
  std::vector<std::string> out;
  for (const Span& s : t.spans) out.push_back(t.text.substr(s.begin, s.end - s.begin));
  return out;
}

const char* const kThreeTurns = R"([{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"}, {"role": "assistant", "content": "four"}])";

// Every row of the fixtures, through the line protocol.
void check_folder(const fs::path& folder, int least) {
  const Value data = jinja::parse_json(read_text(folder / "conversations.json"));
  int n = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".jinja") continue;
    const ChatTemplate chat = ChatTemplate::from_file(entry.path());
    fs::path expected_path = entry.path();
    const Value expected = jinja::parse_json(read_text(expected_path.replace_extension(".expected.json")));
    for (size_t i = 0; i < expected.items().size(); ++i) {
      const auto& conversation = data.dict().find("conversations")->items()[i].dict();
      const auto& row = expected.items()[i].dict();
      ASSERT_EQ(conversation.find("id")->text(), row.find("id")->text());
      auto line = std::make_shared<jinja::DictObject>(conversation);
      line->set("now", *data.dict().find("now"));
      line->set("special_tokens", *data.dict().find("special_tokens"));
      const Value answer = jinja::parse_json(render_line(chat, jinja::to_json(Value::dict(line))));
      SCOPED_TRACE(entry.path().filename().string() + " " + row.find("id")->text());
      ++n;
      if (row.find("error")) {
        ASSERT_TRUE(answer.dict().find("error"));
        EXPECT_EQ(answer.dict().find("error")->text(), row.find("error")->text());
      } else {
        ASSERT_TRUE(answer.dict().find("text")) << answer.dict().find("error")->text();
        EXPECT_EQ(answer.dict().find("text")->text(), row.find("expected")->text());
      }
    }
  }
  EXPECT_GE(n, least);
}

TEST(Chat, lines_render_as_in_transformers) {
  check_folder(testing_support::data_dir() / "templates", 500);
  if (const fs::path shared = testing_support::shared_dir(); !shared.empty())
    check_folder(shared / "fixtures" / "templates", 570);
}

TEST(Chat, a_line_that_is_no_conversation_answers_with_an_error) {
  const ChatTemplate chat = ChatTemplate::built_in("chatml");
  for (const char* line : {"", "\xff\xfe", "[]", "{}", R"({"messages": 5})", R"({"messages": [{"content": "x"}]})",
                           R"({"messages": [], "tools": 1})", R"({"messages": [], "now": "soon"})"})
    EXPECT_NE(render_line(chat, line).find("{\"error\":"), std::string::npos) << line;
}

TEST(Chat, the_reference_checks_of_continue_final_message) {
  const ChatTemplate chat = ChatTemplate::built_in("chatml");
  ChatOptions options{.continue_final_message = "content"};
  const auto render = [&](const char* messages) { return chat.render(jinja::parse_json(messages), options).text; };
  EXPECT_EQ(render(R"([{"role": "assistant", "content": "a b "}])"), "<|im_start|>assistant\na b ");
  EXPECT_EQ(render(R"([{"role": "assistant", "content": [{"type": "text", "text": "x"}]}])"),
            "<|im_start|>assistant\nx");
  EXPECT_THROW(render(R"([{"role": "assistant", "content": null}])"), Error);
  EXPECT_THROW(render("[]"), Error);
  options.add_generation_prompt = true;
  EXPECT_THROW(render(R"([{"role": "assistant", "content": "a"}])"), Error);
}

TEST(Chat, every_built_in_family_renders_and_marks_its_turns) {
  ASSERT_EQ(all_families().size(), 16u);
  const Value messages = jinja::parse_json(kThreeTurns);
  for (const Family* family : all_families()) {
    SCOPED_TRACE(family->name);
    const ChatTemplate chat = ChatTemplate::built_in(family->name);
    const std::string prompt = chat.render(messages, {.add_generation_prompt = true}).text;
    for (const char* part : {"one", "two", "three", "four"}) EXPECT_NE(prompt.find(part), std::string::npos) << prompt;
    const Trained all = chat.render_for_training(messages, {}, TrainOn::kAll);
    ASSERT_EQ(all.spans.size(), 2u);
    EXPECT_NE(pieces(all)[0].find("two"), std::string::npos);
    EXPECT_NE(pieces(all)[1].find("four"), std::string::npos);
    for (const std::string& piece : pieces(all)) {
      EXPECT_EQ(piece.find("one"), std::string::npos);
      EXPECT_EQ(piece.find("three"), std::string::npos);
    }
    const Trained last = chat.render_for_training(messages, {}, TrainOn::kLast);
    ASSERT_EQ(last.spans.size(), 1u);
    EXPECT_EQ(last.spans[0], all.spans[1]);
  }
}

TEST(Chat, the_text_of_well_known_formats) {
  const Value messages = jinja::parse_json(
      R"([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}])");
  const auto text = [&](const char* family) { return ChatTemplate::built_in(family).render(messages, {}).text; };
  EXPECT_EQ(text("chatml"),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n");
  EXPECT_EQ(text("llama3"),
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user"
            "<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>");
  EXPECT_EQ(text("llama2"), "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s>");
  EXPECT_EQ(text("gemma"), "<bos><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n");
  EXPECT_EQ(text("phi3"), "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n");
  EXPECT_EQ(text("zephyr"), "<|system|>\nS</s>\n<|user|>\nU</s>\n<|assistant|>\nA</s>\n");
  EXPECT_EQ(text("deepseek"), "<｜begin▁of▁sentence｜>S<｜User｜>U<｜Assistant｜>A<｜end▁of▁sentence｜>");
}

TEST(Chat, masks_hold_the_answer_and_its_end_marker) {
  const Trained t =
      ChatTemplate::built_in("chatml").render_for_training(jinja::parse_json(kThreeTurns), {}, TrainOn::kAll);
  EXPECT_EQ(pieces(t), (std::vector<std::string>{"two<|im_end|>\n", "four<|im_end|>\n"}));
  const Trained everything =
      ChatTemplate::built_in("chatml").render_for_training(jinja::parse_json(kThreeTurns), {}, TrainOn::kEverything);
  EXPECT_EQ(pieces(everything), std::vector<std::string>{everything.text});
}

TEST(Chat, masks_survive_templates_that_rewrite_earlier_turns) {
  // Qwen3 puts an empty reasoning block before the last answer only, so no prefix of the conversation is a prefix
  const ChatTemplate chat =
      ChatTemplate::from_file(testing_support::data_dir() / "templates" / "Qwen-Qwen3-0.6B.jinja");
  const Trained t = chat.render_for_training(jinja::parse_json(kThreeTurns), {}, TrainOn::kAll);
  EXPECT_EQ(pieces(t), (std::vector<std::string>{"two<|im_end|>\n", "<think>\n\n</think>\n\nfour<|im_end|>\n"}));
}

TEST(Chat, generation_blocks_are_the_mask_where_a_template_has_them) {
  const ChatTemplate chat = ChatTemplate::from_source(
      "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}{% generation %}{{ m.content }};{% "
      "endgeneration %}"
      "{% else %}{{ m.content }};{% endif %}{% endfor %}",
      "t", Value());
  EXPECT_EQ(pieces(chat.render_for_training(jinja::parse_json(kThreeTurns), {}, TrainOn::kAll)),
            (std::vector<std::string>{"two;", "four;"}));
  EXPECT_EQ(pieces(chat.render_for_training(jinja::parse_json(kThreeTurns), {}, TrainOn::kLast)),
            std::vector<std::string>{"four;"});
}

TEST(Chat, released_templates_are_recognised) {
  const fs::path folder = testing_support::data_dir() / "templates";
  const std::pair<const char*, const char*> cases[] = {{"Qwen-Qwen3-0.6B", "qwen"},
                                                       {"openai-gpt-oss-120b", "gpt-oss"},
                                                       {"google-gemma-4-31B-it-interleaved", "gemma4"},
                                                       {"microsoft-Phi-3.5-mini-instruct", "phi3"},
                                                       {"Mistral-Small-3.2-24B-Instruct-2506", "mistral"},
                                                       {"deepseek-ai-DeepSeek-V3.1", "deepseek"},
                                                       {"CohereForAI-c4ai-command-r-plus-tool_use", "cohere"},
                                                       {"fireworks-ai-llama-3-firefunction-v2", "llama3"}};
  for (const auto& [file, family] : cases) {
    const ChatTemplate chat = ChatTemplate::from_file(folder / (std::string(file) + ".jinja"));
    ASSERT_NE(chat.family(), nullptr) << file;
    EXPECT_STREQ(chat.family()->name, family) << file;
  }
  EXPECT_STREQ(detect_by_model_name("meta-llama/Llama-3.1-8B-Instruct")->name, "llama3");
  EXPECT_STREQ(detect_by_model_name("google/gemma-3-4b-it")->name, "gemma");
  EXPECT_STREQ(detect_by_model_name("microsoft/Phi-4")->name, "phi4");
  EXPECT_EQ(detect_by_model_name("somebody/thing"), nullptr);
}

class ModelDir : public testing::Test {
 protected:
  void SetUp() override { dir_ = testing_support::scratch_dir("chat"); }
  void TearDown() override { fs::remove_all(dir_); }
  void write(const fs::path& name, const std::string& text) {
    fs::create_directories((dir_ / name).parent_path());
    write_file_atomic(dir_ / name, text);
  }
  std::string render(const ChatOptions& options = {}) {
    return ChatTemplate::from_model_dir(dir_)
        .render(jinja::parse_json(R"([{"role": "user", "content": "x"}])"), options)
        .text;
  }
  fs::path dir_;
};

TEST_F(ModelDir, the_file_wins_over_the_config_and_tokens_may_be_objects) {
  write(
      "tokenizer_config.json",
      R"({"chat_template": "config {{ bos_token }}{{ eos_token }}", "bos_token": {"content": "<b>"}, "eos_token": "<e>"})");
  EXPECT_EQ(render(), "config <b><e>");
  write("chat_template.jinja", "file {{ bos_token }}");
  EXPECT_EQ(render(), "file <b>");
}

TEST_F(ModelDir, several_templates_are_chosen_between) {
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"},
                              {"name": "rag", "template": "R"}]})");
  EXPECT_EQ(render(), "D");
  EXPECT_EQ(render({.tools = Value::list({})}), "T");
  EXPECT_EQ(render({.template_name = "rag"}), "R");
  EXPECT_THROW(render({.template_name = "none"}), Error);
}

TEST_F(ModelDir, a_model_without_a_template_gets_its_family) {
  write("config.json", R"({"model_type": "gemma2"})");
  EXPECT_EQ(render(), "<bos><start_of_turn>user\nx<end_of_turn>\n");
  write("config.json", R"({"model_type": "unheard-of"})");
  EXPECT_THROW(render(), Error);
}

TEST_F(ModelDir, the_date_can_be_frozen) {
  write("chat_template.jinja", "{{ strftime_now('%d %b %Y') }}");
  ::setenv("PMETAL_CHAT_TEMPLATE_FROZEN_DATE", "2025-01-31", 1);
  EXPECT_EQ(render(), "31 Jan 2025");
  ::setenv("PMETAL_CHAT_TEMPLATE_FROZEN_DATE", "tomorrow", 1);
  EXPECT_THROW(render(), Error);
  ::unsetenv("PMETAL_CHAT_TEMPLATE_FROZEN_DATE");
}

}  // namespace
}  // namespace pmetal::text::chat
