// Calls in notations that are read as a whole when they are complete: [f(a=1, b="x"), g()] and Gemma's
// call:f{a:1,b:<|"|>x<|"|>}.
#include <cctype>
#include <optional>

#include "base/error.h"
#include "text/chat/call_reader.h"
#include "text/template/json.h"

namespace pmetal::text::chat {
namespace {

using jinja::DictObject;
using jinja::Value;

constexpr int kMaxNesting = 100;
constexpr std::string_view kGemmaQuote = "<|\"|>";

struct Call {
  std::string name, arguments;
};

bool is_name_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-'; }

// A cursor over complete text; every function gives nullopt or false where the text is something else.
class Notation {
 public:
  Notation(std::string_view text, bool is_gemma) : text_(text), is_gemma_(is_gemma) {}

  // [f(k=v, …), …]
  std::optional<std::vector<Call>> call_list() {
    std::vector<Call> calls;
    if (!take('[')) return std::nullopt;
    do {
      Call call{name(), ""};
      if (call.name.empty() || !take('(')) return std::nullopt;
      auto arguments = std::make_shared<DictObject>();
      while (!take(')')) {
        if (!arguments->items.empty() && !take(',')) return std::nullopt;
        if (take(')')) break;
        const std::string key = name();
        if (key.empty() || !take('=')) return std::nullopt;
        auto v = value(0);
        if (!v) return std::nullopt;
        arguments->set(key, *std::move(v));
      }
      call.arguments = jinja::to_json(Value::dict(arguments));
      calls.push_back(std::move(call));
    } while (take(','));
    if (!take(']') || !at_end()) return std::nullopt;
    return calls;
  }

  // call:f{k:v,…}
  std::optional<Call> gemma_call() {
    if (!literal("call:")) return std::nullopt;
    Call call{name(), ""};
    if (call.name.empty()) return std::nullopt;
    auto v = value(0);
    if (!v || !v->is(jinja::Kind::kDict) || !at_end()) return std::nullopt;
    call.arguments = jinja::to_json(*v);
    return call;
  }

 private:
  void blank() {
    while (i_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[i_]))) ++i_;
  }
  bool at_end() {
    blank();
    return i_ == text_.size();
  }
  bool take(char c) {
    blank();
    if (i_ >= text_.size() || text_[i_] != c) return false;
    ++i_;
    return true;
  }
  bool literal(std::string_view word) {
    blank();
    if (!text_.substr(i_).starts_with(word)) return false;
    i_ += word.size();
    return true;
  }
  std::string name() {
    blank();
    const size_t begin = i_;
    while (i_ < text_.size() && is_name_char(text_[i_])) ++i_;
    return std::string(text_.substr(begin, i_ - begin));
  }

  std::optional<Value> value(int depth) {
    if (depth > kMaxNesting) return std::nullopt;
    blank();
    if (i_ >= text_.size()) return std::nullopt;
    const char c = text_[i_];
    if (is_gemma_ && text_.substr(i_).starts_with(kGemmaQuote)) return gemma_string();
    if (c == '"' || (c == '\'' && !is_gemma_)) return string(c);
    if (c == '{') return dict(depth);
    if (c == '[' || c == '(') return list(c == '[' ? ']' : ')', depth);
    const size_t begin = i_;
    while (i_ < text_.size() && (is_name_char(text_[i_]) || text_[i_] == '+')) ++i_;
    const std::string word(text_.substr(begin, i_ - begin));
    if (word == "True" || word == "true") return Value::boolean(true);
    if (word == "False" || word == "false") return Value::boolean(false);
    if (word == "None" || word == "null") return Value();
    try {
      const Value v = jinja::parse_json(word);
      if (v.is_number()) return v;
    } catch (const Error&) {
      return std::nullopt;  // not a number either: no value
    }
    return std::nullopt;
  }

  std::optional<Value> gemma_string() {
    i_ += kGemmaQuote.size();
    const size_t end = text_.find(kGemmaQuote, i_);
    if (end == std::string_view::npos) return std::nullopt;
    std::string out(text_.substr(i_, end - i_));
    i_ = end + kGemmaQuote.size();
    return Value::string(std::move(out));
  }

  std::optional<Value> string(char quote) {
    std::string out = "\"";  // as a JSON token, whose escapes are nearly Python's
    ++i_;
    for (; i_ < text_.size() && text_[i_] != quote; ++i_) {
      const char c = text_[i_];
      if (c == '\\' && i_ + 1 < text_.size()) {
        const char e = text_[++i_];
        if (e == '\'') {
          out += '\'';
        } else if (e == '\n') {
          continue;
        } else if (std::string_view("\"\\/bfnrtu").find(e) != std::string_view::npos) {
          out += {'\\', e};
        } else {
          out += {'\\', '\\', e};
        }
      } else if (c == '"') {
        out += "\\\"";
      } else if (static_cast<unsigned char>(c) < 0x20) {
        out += fmt::format("\\u{:04x}", c);
      } else {
        out += c;
      }
    }
    if (i_ >= text_.size()) return std::nullopt;
    ++i_;
    try {
      return jinja::parse_json(out + "\"");
    } catch (const Error&) {
      return std::nullopt;
    }
  }

  std::optional<Value> list(char close, int depth) {
    ++i_;
    std::vector<Value> items;
    while (!take(close)) {
      if (!items.empty() && !take(',')) return std::nullopt;
      if (take(close)) break;
      auto v = value(depth + 1);
      if (!v) return std::nullopt;
      items.push_back(*std::move(v));
    }
    return Value::list(std::move(items));
  }

  std::optional<Value> dict(int depth) {
    ++i_;
    auto items = std::make_shared<DictObject>();
    while (!take('}')) {
      if (!items->items.empty() && !take(',')) return std::nullopt;
      if (take('}')) break;
      blank();
      Value key;
      if (is_gemma_ && !text_.substr(i_).starts_with(kGemmaQuote) && !text_.substr(i_).starts_with("\"")) {
        key = Value::string(name());
        if (key.text().empty()) return std::nullopt;
      } else {
        auto k = value(depth + 1);
        if (!k || !k->is_string()) return std::nullopt;
        key = *std::move(k);
      }
      if (!take(':')) return std::nullopt;
      auto v = value(depth + 1);
      if (!v) return std::nullopt;
      items->set(key, *std::move(v));
    }
    return Value::dict(std::move(items));
  }

  std::string_view text_;
  bool is_gemma_;
  size_t i_ = 0;
};

void announce(const Call& call, CallSink& sink) {
  sink.start(call.name);
  sink.arguments(call.arguments);
  sink.end();
}

class PythonicReader : public CallReader {
 public:
  PythonicReader(const ParserSpec& spec, bool has_marker) : spec_(spec), has_marker_(has_marker) {}

  Status push(char c, CallSink& sink) override {
    if (is_read_) {
      if (!has_marker_) return Status::kDoneBefore;
      const int hit = matcher_.push(c, {spec_.closes[0], spec_.closes[1], spec_.closes[2]});
      if (hit == LiteralMatcher::kMore) return Status::kMore;
      return hit == LiteralMatcher::kMismatch ? Status::kDoneBefore : Status::kDone;
    }
    if (text_.empty() && std::isspace(static_cast<unsigned char>(c))) return Status::kMore;
    text_ += c;
    if (text_[0] != '[') return Status::kReject;
    if (!name_is_checked_ && !check_name(c, sink)) return Status::kReject;
    if (escaped_) {
      escaped_ = false;
      return Status::kMore;
    }
    if (quote_) {
      if (c == '\\') escaped_ = true;
      if (c == quote_) quote_ = 0;
      return Status::kMore;
    }
    if (c == '"' || c == '\'') quote_ = c;
    if (c == '[' || c == '(' || c == '{') ++nesting_;
    if (c == ']' || c == ')' || c == '}') --nesting_;
    if (nesting_ > 0) return Status::kMore;
    const auto calls = Notation(text_, false).call_list();
    if (!calls) return Status::kReject;
    for (const Call& call : *calls)
      if (!sink.is_tool(call.name)) return Status::kReject;
    for (const Call& call : *calls) announce(call, sink);
    is_read_ = true;
    return Status::kMore;
  }

  bool finish(CallSink&) override { return is_read_; }

 private:
  // what follows the bracket must be the name of a tool and a parenthesis, else it is text
  bool check_name(char c, const CallSink& sink) {
    if (text_.size() == 1 || (name_.empty() && std::isspace(static_cast<unsigned char>(c)))) return true;
    if (is_name_char(c)) {
      name_ += c;
      return true;
    }
    name_is_checked_ = true;
    return c == '(' && sink.is_tool(name_);
  }

  const ParserSpec& spec_;
  bool has_marker_;
  std::string text_, name_;
  bool name_is_checked_ = false, escaped_ = false, is_read_ = false;
  char quote_ = 0;
  int nesting_ = 0;
  LiteralMatcher matcher_;
};

class GemmaReader : public CallReader {
 public:
  explicit GemmaReader(const ParserSpec& spec) : spec_(spec) {}

  Status push(char c, CallSink& sink) override {
    text_ += c;
    if (!text_.ends_with(spec_.closes[0])) return Status::kMore;
    // a closing marker inside quoted text is text
    size_t quotes = 0;
    for (size_t at = 0; (at = text_.find(kGemmaQuote, at)) != std::string::npos; at += kGemmaQuote.size()) ++quotes;
    if (quotes % 2 == 1) return Status::kMore;
    const std::string_view body = std::string_view(text_).substr(0, text_.size() - spec_.closes[0].size());
    const auto call = Notation(body, true).gemma_call();
    if (!call || !sink.is_tool(call->name)) return Status::kReject;
    announce(*call, sink);
    return Status::kDone;
  }
  bool finish(CallSink&) override { return false; }

 private:
  const ParserSpec& spec_;
  std::string text_;
};

}  // namespace

std::unique_ptr<CallReader> make_pythonic_reader(const ParserSpec& spec, bool has_marker) {
  return std::make_unique<PythonicReader>(spec, has_marker);
}
std::unique_ptr<CallReader> make_gemma_reader(const ParserSpec& spec) { return std::make_unique<GemmaReader>(spec); }

}  // namespace pmetal::text::chat
