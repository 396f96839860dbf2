#include "text/chat/chat.h"

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "base/file.h"
#include "text/template/json.h"
#include "text/template/unicode.h"

namespace pmetal::text::chat {
namespace {

namespace fs = std::filesystem;
using jinja::DictObject;
using jinja::Kind;

// what transformers appends to the final message to find where it ends
constexpr std::string_view kContinueTag = "CONTINUE_FINAL_MESSAGE_TAG ";

std::shared_ptr<DictObject> copy_of(const Value& dict) {
  auto copy = std::make_shared<DictObject>();
  if (dict.is(Kind::kDict))
    for (const auto& [key, value] : dict.dict().items) copy->set(key, value);
  return copy;
}

DateTime current_time(const ChatOptions& options) {
  if (options.now) return *options.now;
  const char* frozen = std::getenv("PMETAL_CHAT_TEMPLATE_FROZEN_DATE");
  if (frozen == nullptr || *frozen == '\0') return DateTime::now();
  try {
    return DateTime::parse(frozen);
  } catch (const Error& e) {
    fail(ErrorCode::kUsage, "PMETAL_CHAT_TEMPLATE_FROZEN_DATE: {}", e.what());
  }
}

void check_messages(const Value& messages) {
  if (!messages.is(Kind::kList)) fail(ErrorCode::kInvalidInput, "messages must be a list of {{role, content}}");
  for (size_t i = 0; i < messages.items().size(); ++i) {
    const Value& message = messages.items()[i];
    if (!message.is(Kind::kDict)) fail(ErrorCode::kInvalidInput, "messages[{}] must be an object with a role", i);
    const Value* role = message.dict().find("role");
    if (role == nullptr || !role->is_string())
      fail(ErrorCode::kInvalidInput, "messages[{}].role must be a string such as \"user\" or \"assistant\"", i);
  }
}

void check_list_of_objects(const Value& v, const char* what) {
  if (v.is_none()) return;
  if (!v.is(Kind::kList)) fail(ErrorCode::kInvalidInput, "{} must be a list of objects", what);
  for (size_t i = 0; i < v.items().size(); ++i)
    if (!v.items()[i].is(Kind::kDict)) fail(ErrorCode::kInvalidInput, "{}[{}] must be an object", what, i);
}

Value with_message(const Value& messages, size_t i, Value message) {
  std::vector<Value> items = messages.items();
  items[i] = std::move(message);
  return Value::list(std::move(items));
}

Value first_messages(const Value& messages, size_t n) {
  return Value::list({messages.items().begin(), messages.items().begin() + static_cast<std::ptrdiff_t>(n)});
}

std::string_view stripped(std::string_view text) { return jinja::unicode::strip(text, nullptr, true, true); }

// The last message with kContinueTag behind its text; `text` becomes the text that is continued.
Value tagged(const Value& messages, const std::string& field, std::string* text) {
  if (messages.items().empty()) fail(ErrorCode::kInvalidInput, "continue_final_message: there is no message");
  const size_t last = messages.items().size() - 1;
  auto message = copy_of(messages.items()[last]);
  const Value* found = message->find(field);
  if (found == nullptr || found->is_none())
    fail(ErrorCode::kInvalidInput, "continue_final_message: the final message has no \"{}\" to continue", field);
  const Value content = *found;
  if (content.is_string()) {
    *text = content.text();
    message->set(field, Value::string(content.text() + std::string(kContinueTag)));
    return with_message(messages, last, Value::dict(message));
  }
  if (content.is(Kind::kList)) {
    std::vector<Value> parts = content.items();
    for (size_t i = parts.size(); i-- > 0;) {
      const Value* part = parts[i].is(Kind::kDict) ? parts[i].dict().find("text") : nullptr;
      if (part == nullptr || !part->is_string()) continue;
      *text = part->text();
      auto changed = copy_of(parts[i]);
      changed->set("text", Value::string(*text + std::string(kContinueTag)));
      parts[i] = Value::dict(changed);
      message->set(field, Value::list(std::move(parts)));
      return with_message(messages, last, Value::dict(message));
    }
  }
  fail(ErrorCode::kInvalidInput, "continue_final_message: no text to continue in \"{}\" of the final message", field);
}

size_t common_prefix(std::string_view a, std::string_view b) {
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(std::min(a.size(), b.size())), b.begin()).first -
      a.begin());
}
size_t common_suffix(std::string_view a, std::string_view b) {
  size_t n = 0;
  while (n < std::min(a.size(), b.size()) && a[a.size() - 1 - n] == b[b.size() - 1 - n]) ++n;
  return n;
}

// the message with all it says replaced by text that shares neither its first nor its last character
Value replaced(const Value& message, char mark) {
  auto changed = copy_of(message);
  const std::string text = std::string(1, mark) + "replaced" + mark;
  if (const Value* calls = changed->find("tool_calls"); calls && jinja::truth(*calls)) {
    std::vector<Value> list;
    for (const Value& call : calls->items()) {
      auto c = copy_of(call);
      const Value* nested = c->find("function");
      auto function = copy_of(nested ? *nested : call);
      function->set("name", Value::string(text));
      if (nested)
        c->set("function", Value::dict(function));
      else
        c = function;
      list.push_back(Value::dict(c));
    }
    changed->set("tool_calls", Value::list(std::move(list)));
  }
  const Value* content = changed->find("content");
  const bool has_text = content && jinja::truth(*content);
  if (has_text || !changed->find("tool_calls")) changed->set("content", Value::string(text));
  return Value::dict(changed);
}

}  // namespace

std::vector<std::string> ChatTemplate::names() const {
  std::vector<std::string> out;
  for (const auto& [name, _] : sources_) out.push_back(name);
  return out;
}

bool ChatTemplate::has_generation() const { return templates_[0].has_generation(); }

std::string ChatTemplate::special_token(std::string_view name) const {
  const Value* v = special_tokens_.is(Kind::kDict) ? special_tokens_.dict().find(name) : nullptr;
  return v && v->is_string() ? v->text() : "";
}

void ChatTemplate::set_special_tokens(const Value& special_tokens) {
  auto all = copy_of(special_tokens_);
  for (const auto& [key, value] : special_tokens.dict().items) all->set(key, value);
  special_tokens_ = Value::dict(all);
}

void ChatTemplate::add(const std::string& name, const std::string& source, const std::string& shown_name) {
  templates_.push_back(jinja::Template::parse(source, shown_name));
  sources_.emplace_back(name, source);
}

ChatTemplate ChatTemplate::from_source(std::string_view source, const std::string& name, const Value& special_tokens) {
  ChatTemplate t;
  t.origin_ = name;
  t.special_tokens_ = special_tokens.is(Kind::kDict) ? special_tokens : Value::dict(std::make_shared<DictObject>());
  t.add("default", std::string(source), name);
  t.family_ = detect_by_template(source);
  return t;
}

ChatTemplate ChatTemplate::from_file(const fs::path& path) {
  return from_source(read_text(path), path.string(), Value());
}

ChatTemplate ChatTemplate::built_in(std::string_view name) {
  const Family* family = find_family(name);
  if (family == nullptr) {
    std::string known;
    for (const Family* f : all_families()) known += (known.empty() ? "" : ", ") + std::string(f->name);
    fail(ErrorCode::kUsage, "there is no built-in chat template \"{}\"; known: {}", name, known);
  }
  auto tokens = std::make_shared<DictObject>();
  tokens->set("bos_token", Value::string(family->bos_token));
  tokens->set("eos_token", Value::string(family->eos_token));
  ChatTemplate t;
  t.origin_ = fmt::format("built-in chat template {}", family->name);
  t.special_tokens_ = Value::dict(tokens);
  t.add("default", std::string(kContentMacro) + family->source, t.origin_);
  t.family_ = family;
  return t;
}

const jinja::Template& ChatTemplate::choose(const ChatOptions& options) const {
  const auto named = [&](std::string_view name) -> const jinja::Template* {
    for (size_t i = 0; i < sources_.size(); ++i)
      if (sources_[i].first == name) return &templates_[i];
    return nullptr;
  };
  std::string known;
  for (const std::string& name : names()) known += (known.empty() ? "" : ", ") + name;
  if (!options.template_name.empty()) {
    if (const jinja::Template* t = named(options.template_name)) return *t;
    fail(ErrorCode::kUsage, "{}: no chat template \"{}\"; it has: {}", origin_, options.template_name, known);
  }
  if (!options.tools.is_none())
    if (const jinja::Template* t = named("tool_use")) return *t;
  if (const jinja::Template* t = named("default")) return *t;
  if (templates_.size() == 1) return templates_[0];
  fail(ErrorCode::kUsage, "{}: several chat templates and none is the default; name one of: {}", origin_, known);
}

Rendered ChatTemplate::render_plain(const Value& messages, const ChatOptions& options) const {
  auto context = copy_of(special_tokens_);
  context->set("messages", messages);
  context->set("tools", options.tools);
  context->set("documents", options.documents);
  context->set("add_generation_prompt", Value::boolean(options.add_generation_prompt));
  if (options.extra.is(Kind::kDict))
    for (const auto& [key, value] : options.extra.dict().items) context->set(key, value);
  const jinja::RenderOptions render_options{.now = current_time(options), .limits = {}};
  return choose(options).render(Value::dict(context), render_options);
}

Rendered ChatTemplate::render(const Value& messages, const ChatOptions& options) const {
  check_messages(messages);
  check_list_of_objects(options.tools, "tools");
  check_list_of_objects(options.documents, "documents");
  if (!options.extra.is_none() && !options.extra.is(Kind::kDict))
    fail(ErrorCode::kInvalidInput, "extra template variables must be an object");
  const std::string& field = options.continue_final_message;
  if (field.empty()) return render_plain(messages, options);
  if (options.add_generation_prompt)
    fail(
        ErrorCode::kInvalidInput,
        "continue_final_message and add_generation_prompt exclude each other: the first goes on with the last message, "
        "the second begins a new one");
  if (std::none_of(sources_.begin(), sources_.end(),
                   [&](const auto& s) { return s.second.find(field) != std::string::npos; }))
    fail(ErrorCode::kInvalidInput, "{}: continue_final_message: the template has no field \"{}\"", origin_, field);
  std::string text;
  Rendered out = render_plain(tagged(messages, field, &text), options);
  const std::string_view bare_tag = stripped(kContinueTag);
  const size_t at = out.text.rfind(bare_tag);
  if (at == std::string::npos || out.text.find(stripped(text)) == std::string::npos)
    fail(ErrorCode::kInvalidInput, "{}: continue_final_message: the final message does not appear in the rendered text",
         origin_);
  const bool keeps_space = out.text.compare(at, kContinueTag.size(), kContinueTag) == 0;
  out.text.resize(at);
  if (!keeps_space) out.text = std::string(jinja::unicode::strip(out.text, nullptr, false, true));
  for (Span& span : out.generation) {
    span.begin = std::min(span.begin, out.text.size());
    span.end = std::min(span.end, out.text.size());
  }
  return out;
}

std::optional<Span> ChatTemplate::assistant_span(const Value& messages, size_t i, const std::string& full,
                                                 const ChatOptions& options) const {
  // a conversation that breaks off early may be one the template refuses
  const auto attempt = [&](const Value& some, bool prompt) -> std::optional<std::string> {
    ChatOptions o = options;
    o.add_generation_prompt = prompt;
    try {
      return render_plain(some, o).text;
    } catch (const Error&) {
      return std::nullopt;
    }
  };
  const auto before = attempt(first_messages(messages, i), true);
  const auto until = attempt(first_messages(messages, i + 1), false);
  const bool begins = before && full.starts_with(*before);
  const bool ends = until && full.starts_with(*until);
  if (begins && ends && before->size() <= until->size()) return Span{before->size(), until->size()};

  // where the text itself stands: render with another one in its place
  const Value& message = messages.items()[i];
  for (const char mark : {'\x01', '\x02'}) {
    const Value other = replaced(message, mark);
    const auto changed = attempt(with_message(messages, i, other), false);
    if (!changed || *changed == full) continue;
    const size_t content_begin = common_prefix(full, *changed);
    const size_t content_end = full.size() - std::min(common_suffix(full, *changed), full.size() - content_begin);
    const size_t begin = begins && before->size() <= content_begin ? before->size() : content_begin;
    if (ends && until->size() >= content_end) return Span{begin, until->size()};
    // the marker that ends the turn is what follows the text when the turn is the last one
    if (!until) continue;
    const auto until_changed = attempt(with_message(first_messages(messages, i + 1), i, other), false);
    if (!until_changed || *until_changed == *until) continue;
    const size_t shared = common_prefix(*until, *until_changed);
    const size_t marker_size = std::min(common_suffix(*until, *until_changed), until->size() - shared);
    const std::string_view marker = std::string_view(*until).substr(until->size() - marker_size);
    const size_t kept = common_prefix(marker, std::string_view(full).substr(content_end));
    if (kept == 0 && !marker.empty()) continue;
    return Span{begin, content_end + kept};
  }
  return std::nullopt;
}

Trained ChatTemplate::render_for_training(const Value& messages, const ChatOptions& options, TrainOn train_on) const {
  if (options.add_generation_prompt || !options.continue_final_message.empty())
    fail(ErrorCode::kInvalidInput, "text for training has neither a generation prompt nor an open final message");
  Rendered full = render(messages, options);
  Trained out;
  out.text = std::move(full.text);
  if (train_on == TrainOn::kEverything) {
    if (!out.text.empty()) out.spans.push_back({0, out.text.size()});
    return out;
  }
  if (choose(options).has_generation()) {
    out.spans = std::move(full.generation);
  } else {
    for (size_t i = messages.items().size(); i-- > 0;) {
      if (messages.items()[i].dict().find("role")->text() != "assistant") continue;
      const auto span = assistant_span(messages, i, out.text, options);
      if (!span)
        fail(
            ErrorCode::kInvalidInput,
            "{}: the text of messages[{}] cannot be told from what stands around it, so it cannot be trained on alone; "
            "mark it with {{% generation %}} in the template or train on everything",
            origin_, i);
      out.spans.push_back(*span);
      if (train_on == TrainOn::kLast) break;
    }
    std::reverse(out.spans.begin(), out.spans.end());
    for (size_t i = 1; i < out.spans.size(); ++i)
      out.spans[i].begin = std::max(out.spans[i].begin, out.spans[i - 1].end);
  }
  if (train_on == TrainOn::kLast && out.spans.size() > 1) out.spans = {out.spans.back()};
  std::erase_if(out.spans, [](const Span& s) { return s.begin >= s.end; });
  return out;
}

}  // namespace pmetal::text::chat
