// Chat templates of released models with conversations rendered by transformers (tests/data/templates, and all of the
// shared fixtures where present): byte for byte; where the reference raised, we raise.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/testing.h"
#include "text/template/json.h"
#include "text/template/template.h"

namespace pmetal::text::jinja {
namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& path) { return read_text(path); }

Value context_of(const DictObject& conversation, const DictObject& special_tokens) {
  auto context = std::make_shared<DictObject>();
  for (const auto& [key, value] : special_tokens.items) context->set(key, value);
  for (const char* key : {"messages", "tools", "documents"}) {
    const Value* v = conversation.find(key);
    context->set(key, v ? *v : Value());
  }
  const Value* prompt = conversation.find("add_generation_prompt");
  context->set("add_generation_prompt", prompt ? *prompt : Value::boolean(false));
  if (const Value* extra = conversation.find("extra"))
    for (const auto& [key, value] : extra->dict().items) context->set(key, value);
  return Value::dict(context);
}

void check_folder(const fs::path& folder, int least) {
  const Value data = parse_json(read(folder / "conversations.json"));
  const DictObject& special_tokens = data.dict().find("special_tokens")->dict();
  const RenderOptions options{.now = DateTime::parse(data.dict().find("now")->text()), .limits = {}};
  int n = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".jinja") continue;
    const Template t = Template::parse(read(entry.path()), entry.path().stem());
    fs::path expected_path = entry.path();
    const Value expected = parse_json(read(expected_path.replace_extension(".expected.json")));
    for (const Value& row : expected.items()) {
      const std::string id = row.dict().find("id")->text();
      for (const Value& conversation : data.dict().find("conversations")->items()) {
        if (conversation.dict().find("id")->text() != id) continue;
        if (conversation.dict().find("continue_final_message")) continue;  // cut by the chat layer, tested there
        SCOPED_TRACE(entry.path().filename().string() + " " + id);
        ++n;
        const Value context = context_of(conversation.dict(), special_tokens);
        if (row.dict().find("error")) {
          EXPECT_THROW((void)t.render(context, options), Error);
        } else {
          EXPECT_EQ(t.render(context, options).text, row.dict().find("expected")->text());
        }
      }
    }
  }
  EXPECT_GE(n, least);
}

TEST(TemplateFixtures, released_templates_render_as_in_transformers) {
  check_folder(testing_support::data_dir() / "templates", 450);
}

TEST(TemplateFixtures, all_of_them) {
  const fs::path shared = testing_support::shared_dir();
  if (shared.empty()) return;
  check_folder(shared / "fixtures" / "templates", 540);
}

}  // namespace
}  // namespace pmetal::text::jinja
