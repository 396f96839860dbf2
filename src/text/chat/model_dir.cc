// ChatTemplate::from_model_dir: where published models keep their templates and special tokens.
#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "text/chat/chat.h"
#include "text/template/json.h"

namespace pmetal::text::chat {
namespace {

namespace fs = std::filesystem;
using jinja::DictObject;
using jinja::Kind;

// the object in a file; None when there is no file
Value read_object(const fs::path& path) {
  if (!fs::exists(path)) return Value();
  try {
    const Value v = jinja::parse_json(read_text(path));
    if (v.is(Kind::kDict)) return v;
  } catch (const Error& e) {
    fail(e.code(), "{}: {}", path.string(), e.what());
  }
  fail(ErrorCode::kInvalidInput, "{}: expected a JSON object", path.string());
}

// a token as text or as {"content": text}
Value token_text(const Value& v) {
  if (v.is_string()) return v;
  if (v.is(Kind::kDict))
    if (const Value* content = v.dict().find("content"); content && content->is_string()) return *content;
  return Value();
}

void read_tokens(const Value& config, DictObject& tokens) {
  if (!config.is(Kind::kDict)) return;
  for (const char* name :
       {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    const Value* v = config.dict().find(name);
    if (v == nullptr || tokens.find(name)) continue;
    if (const Value text = token_text(*v); text.is_string()) tokens.set(name, text);
  }
  if (const Value* more = config.dict().find("additional_special_tokens");
      more && more->is(Kind::kList) && !more->items().empty() && !tokens.find("additional_special_tokens")) {
    std::vector<Value> list;
    for (const Value& v : more->items())
      if (const Value text = token_text(v); text.is_string()) list.push_back(text);
    tokens.set("additional_special_tokens", Value::list(std::move(list)));
  }
  if (const Value* named = config.dict().find("extra_special_tokens"); named && named->is(Kind::kDict))
    for (const auto& [key, v] : named->dict().items)
      if (const Value text = token_text(v); key.is_string() && text.is_string() && !tokens.find(key.text()))
        tokens.set(key, text);
}

const Family* family_of_model(const fs::path& dir) {
  const Value config = read_object(dir / "config.json");
  const auto by_name = [](const Value* v) { return v && v->is_string() ? detect_by_model_name(v->text()) : nullptr; };
  if (config.is(Kind::kDict)) {
    if (const Family* f = by_name(config.dict().find("_name_or_path"))) return f;
  }
  if (const Family* f = detect_by_model_name(fs::absolute(dir).lexically_normal().filename().string())) return f;
  if (config.is(Kind::kDict)) return by_name(config.dict().find("model_type"));
  return nullptr;
}

}  // namespace

ChatTemplate ChatTemplate::from_model_dir(const fs::path& dir) {
  if (!fs::is_directory(dir)) fail(ErrorCode::kNotFound, "{}: no such model folder", dir.string());
  const Value config = read_object(dir / "tokenizer_config.json");
  auto tokens = std::make_shared<DictObject>();
  read_tokens(config, *tokens);
  read_tokens(read_object(dir / "special_tokens_map.json"), *tokens);

  ChatTemplate t;
  t.origin_ = dir.string();
  t.special_tokens_ = Value::dict(tokens);
  if (const fs::path file = dir / "chat_template.jinja"; fs::exists(file))
    t.add("default", read_text(file), file.string());
  if (const fs::path folder = dir / "additional_chat_templates"; fs::is_directory(folder)) {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().extension() == ".jinja") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) t.add(file.stem().string(), read_text(file), file.string());
  }
  const std::string config_name = (dir / "tokenizer_config.json").string();
  if (t.templates_.empty() && config.is(Kind::kDict)) {
    const Value* given = config.dict().find("chat_template");
    if (given && given->is_string()) {
      t.add("default", given->text(), config_name + ": chat_template");
    } else if (given && given->is(Kind::kList)) {
      for (const Value& entry : given->items()) {
        const Value* name = entry.is(Kind::kDict) ? entry.dict().find("name") : nullptr;
        const Value* source = entry.is(Kind::kDict) ? entry.dict().find("template") : nullptr;
        if (!name || !name->is_string() || !source || !source->is_string())
          fail(ErrorCode::kInvalidInput, "{}: chat_template: each entry needs \"name\" and \"template\"", config_name);
        t.add(name->text(), source->text(), fmt::format("{}: chat_template \"{}\"", config_name, name->text()));
      }
    } else if (given && !given->is_none()) {
      fail(ErrorCode::kInvalidInput, "{}: chat_template must be text or a list of {{name, template}}", config_name);
    }
  }
  if (t.templates_.empty()) {
    const fs::path file = dir / "chat_template.json";
    const Value old = read_object(file);
    const Value* given = old.is(Kind::kDict) ? old.dict().find("chat_template") : nullptr;
    if (given && given->is_string()) t.add("default", given->text(), file.string());
  }
  if (!t.templates_.empty()) {
    t.family_ = detect_by_template(t.sources_[0].second);
    const Family* named = family_of_model(dir);
    if (named &&
        (!t.family_ || (std::string_view(t.family_->name) == "chatml" && std::string_view(named->name) == "qwen")))
      t.family_ = named;
    return t;
  }
  const Family* family = family_of_model(dir);
  if (family == nullptr)
    fail(ErrorCode::kNotFound,
         "{}: the model has no chat template (chat_template.jinja or chat_template in tokenizer_config.json) and its "
         "name tells no known family; give a template file or the name of a family",
         dir.string());
  ChatTemplate built = built_in(family->name);
  built.origin_ = dir.string() + ": " + built.origin_;
  if (!tokens->items.empty()) built.set_special_tokens(t.special_tokens_);
  return built;
}

}  // namespace pmetal::text::chat
