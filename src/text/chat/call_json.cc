// Calls whose arguments are JSON: {"name", "arguments"} objects after a marker, or a name, a marker and an object.
#include "base/error.h"
#include "text/chat/call_reader.h"
#include "text/chat/json_scanner.h"
#include "text/template/json.h"
#include "text/template/unicode.h"

namespace pmetal::text::chat {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// the decoded text of a JSON string token, or nothing
std::string decoded(std::string_view token) {
  try {
    const jinja::Value v = jinja::parse_json(token);
    return v.is_string() ? v.text() : "";
  } catch (const Error&) {
    return "";
  }
}

// one {"name": …, "arguments": {…}} object
class CallObject {
 public:
  explicit CallObject(const ParserSpec& spec) : spec_(spec) {}

  CallReader::Status push(char c, CallSink& sink) {
    text_ += c;
    if (!scanner_.push(c)) return give_up(sink);
    if (scanner_.size() == 1 && c != '{') return CallReader::Status::kReject;
    if (scanner_.value_began && member_ == kOther) {
      if (scanner_.key() == spec_.arguments_key ||
          (spec_.arguments_key == "arguments" && scanner_.key() == "parameters")) {
        member_ = kArguments;
        arguments_begin_ = scanner_.size() - 1;
        arguments_are_object_ = c == '{';
      } else if (scanner_.key() == spec_.name_key) {
        member_ = kName;
        name_begin_ = scanner_.size() - 1;
      } else if (scanner_.key() == "id" || scanner_.key() == "tool_call_id") {
        member_ = kId;
        id_begin_ = scanner_.size() - 1;
      }
    }
    if (scanner_.value_ended) {
      const size_t end = scanner_.value_end();
      if (member_ == kName) {
        name_ = decoded(std::string_view(text_).substr(name_begin_, end - name_begin_));
        if (!sink.is_tool(name_)) return CallReader::Status::kReject;
      } else if (member_ == kId) {
        id_ = decoded(std::string_view(text_).substr(id_begin_, end - id_begin_));
      } else if (member_ == kArguments) {
        arguments_end_ = end;
      }
      member_ = kOther;
    }
    stream(sink);
    if (!scanner_.is_done()) return CallReader::Status::kMore;
    if (name_.empty()) return CallReader::Status::kReject;
    if (!sink.is_open()) {  // no arguments, or none that are an object
      std::string arguments = "{}";
      if (arguments_begin_ != npos) {
        const std::string token = text_.substr(arguments_begin_, arguments_end_ - arguments_begin_);
        const std::string inner = decoded(token);
        if (token != "null") arguments = inner.empty() ? token : inner;
        if (!is_object(arguments)) return CallReader::Status::kReject;
      }
      sink.start(name_, id_);
      sink.arguments(arguments);
    }
    sink.end();
    return CallReader::Status::kDone;
  }

  bool finish(CallSink& sink) {
    if (!sink.is_open()) return false;
    close(sink);
    return true;
  }

 private:
  static constexpr size_t npos = static_cast<size_t>(-1);
  enum Member { kOther, kName, kId, kArguments };

  static bool is_object(const std::string& text) {
    try {
      return jinja::parse_json(text).is(jinja::Kind::kDict);
    } catch (const Error&) {
      return false;
    }
  }

  void stream(CallSink& sink) {
    if (name_.empty() || arguments_begin_ == npos || !arguments_are_object_) return;
    if (!sink.is_open()) sink.start(name_, id_);
    const size_t end = std::min(arguments_end_, scanner_.safe());
    if (end <= std::max(sent_, arguments_begin_)) return;
    const size_t begin = std::max(sent_, arguments_begin_);
    sink.arguments(std::string_view(text_).substr(begin, end - begin));
    sent_ = end;
  }

  void close(CallSink& sink) {
    if (arguments_end_ == npos) {
      std::string closing = scanner_.closing();
      if (!closing.empty()) closing.pop_back();  // the object around the arguments
      sink.arguments(closing);
    }
    sink.end();
  }

  CallReader::Status give_up(CallSink& sink) {
    if (!sink.is_open()) return CallReader::Status::kReject;
    close(sink);
    return CallReader::Status::kDoneBefore;
  }

  const ParserSpec& spec_;
  JsonScanner scanner_;
  std::string text_, name_, id_;
  Member member_ = kOther;
  size_t name_begin_ = 0, id_begin_ = 0, arguments_begin_ = npos, arguments_end_ = npos, sent_ = 0;
  bool arguments_are_object_ = false;
};

class JsonReader : public CallReader {
 public:
  JsonReader(const ParserSpec& spec, bool has_marker) : spec_(spec), has_marker_(has_marker) {}

  Status push(char c, CallSink& sink) override {
    switch (state_) {
      case kStart:
        if (is_blank(c)) return Status::kMore;
        if (c == '[') {
          in_list_ = true;
          state_ = kItem;
          return Status::kMore;
        }
        [[fallthrough]];
      case kItem:
        if (is_blank(c)) return Status::kMore;
        if (in_list_ && c == ']' && any_) {
          state_ = kAfter;
          return Status::kMore;
        }
        if (c != '{') return any_ ? Status::kDoneBefore : Status::kReject;
        object_ = std::make_unique<CallObject>(spec_);
        state_ = kObject;
        [[fallthrough]];
      case kObject: {
        const Status status = object_->push(c, sink);
        if (status == Status::kMore || status == Status::kReject || status == Status::kDoneBefore) return status;
        any_ = true;
        state_ = in_list_ ? kComma : kAfter;
        return Status::kMore;
      }
      case kComma:
        if (is_blank(c)) return Status::kMore;
        if (c == ',') {
          state_ = kItem;
          return Status::kMore;
        }
        if (c != ']') return Status::kDoneBefore;
        state_ = kAfter;
        return Status::kMore;
      case kAfter: {
        if (!has_marker_ && spec_.separator.empty()) {
          if (is_blank(c)) return Status::kMore;
        }
        const int hit = matcher_.push(c, {spec_.closes[0], spec_.closes[1], spec_.closes[2], spec_.separator});
        if (hit == LiteralMatcher::kMore) return Status::kMore;
        if (hit == 3) {
          state_ = kStart;
          return Status::kMore;
        }
        return hit == LiteralMatcher::kMismatch ? Status::kDoneBefore : Status::kDone;
      }
    }
    return Status::kReject;
  }

  bool finish(CallSink& sink) override { return state_ == kObject ? object_->finish(sink) : any_; }

 private:
  enum State { kStart, kItem, kObject, kComma, kAfter };
  const ParserSpec& spec_;
  bool has_marker_;
  State state_ = kStart;
  bool in_list_ = false, any_ = false;
  std::unique_ptr<CallObject> object_;
  LiteralMatcher matcher_;
};

class NamedJsonReader : public CallReader {
 public:
  NamedJsonReader(const ParserSpec& spec, std::string_view opened_by) : spec_(spec) {
    const bool names_follow = spec.call_open.empty() || opened_by == spec.call_open;
    state_ = names_follow ? kName : kBetween;
  }

  Status push(char c, CallSink& sink) override {
    switch (state_) {
      case kBetween: {
        const int hit = matcher_.push(
            c, {spec_.call_open.empty() ? spec_.opens[0] : spec_.call_open, spec_.closes[0], spec_.closes[1]});
        if (hit == LiteralMatcher::kMore) return Status::kMore;
        if (hit == LiteralMatcher::kMismatch) return any_ ? Status::kDoneBefore : Status::kReject;
        if (hit > 0) return any_ ? Status::kDone : Status::kReject;
        state_ = kName;
        name_.clear();
        id_.clear();
        return Status::kMore;
      }
      case kName:
        name_ += c;
        // the list form of the same family: [TOOL_CALLS][{…}]
        if (jinja::unicode::strip(name_, nullptr, true, true) == "[") return Status::kReject;
        if (!spec_.id_open.empty() && name_.ends_with(spec_.id_open)) {
          name_.resize(name_.size() - spec_.id_open.size());
          state_ = kId;
          return Status::kMore;
        }
        if (!name_.ends_with(spec_.name_close)) return name_.size() > 512 ? Status::kReject : Status::kMore;
        name_.resize(name_.size() - spec_.name_close.size());
        return begin_arguments(sink);
      case kId:
        id_ += c;
        if (!id_.ends_with(spec_.name_close)) return id_.size() > 512 ? Status::kReject : Status::kMore;
        id_.resize(id_.size() - spec_.name_close.size());
        return begin_arguments(sink);
      case kStart:
        if (is_blank(c)) return Status::kMore;
        if (c != '{') return Status::kReject;
        state_ = kArguments;
        sink.start(name_, id_);
        [[fallthrough]];
      case kArguments: {
        text_ += c;
        const bool is_valid = scanner_.push(c);
        const size_t safe = std::min(scanner_.safe(), text_.size());
        if (safe > sent_) sink.arguments(std::string_view(text_).substr(sent_, safe - sent_));
        sent_ = std::max(sent_, safe);
        if (!is_valid) {
          sink.arguments(scanner_.closing());
          sink.end();
          return Status::kDoneBefore;
        }
        if (!scanner_.is_done()) return Status::kMore;
        sink.end();
        any_ = true;
        state_ = spec_.call_close.empty() ? kBetween : kClose;
        return Status::kMore;
      }
      case kClose: {
        const int hit = matcher_.push(
            c, {spec_.call_close, spec_.call_open.empty() ? spec_.opens[0] : spec_.call_open, spec_.closes[0]});
        if (hit == LiteralMatcher::kMore) return Status::kMore;
        if (hit == LiteralMatcher::kMismatch) return Status::kDoneBefore;
        if (hit == 2) return Status::kDone;
        name_.clear();
        id_.clear();
        state_ = hit == 0 ? kBetween : kName;
        return Status::kMore;
      }
    }
    return Status::kReject;
  }

  bool finish(CallSink& sink) override {
    if (state_ == kArguments) {
      sink.arguments(scanner_.closing());
      sink.end();
      return true;
    }
    return any_ && (state_ == kBetween || state_ == kClose);
  }

 private:
  Status begin_arguments(CallSink& sink) {
    std::string_view name = jinja::unicode::strip(name_, nullptr, true, true);
    if (!spec_.name_prefix.empty() && name.starts_with(spec_.name_prefix)) name.remove_prefix(spec_.name_prefix.size());
    if (spec_.id_is_name) {
      id_ = std::string(jinja::unicode::strip(name_, nullptr, true, true));
      name = name.substr(0, name.rfind(':'));
    }
    name_ = std::string(name);
    if (!sink.is_tool(name_)) return Status::kReject;
    scanner_ = JsonScanner();
    text_.clear();
    sent_ = 0;
    state_ = kStart;
    return Status::kMore;
  }

  enum State { kBetween, kName, kId, kStart, kArguments, kClose };
  const ParserSpec& spec_;
  State state_;
  bool any_ = false;
  std::string name_, id_, text_;
  size_t sent_ = 0;
  JsonScanner scanner_;
  LiteralMatcher matcher_;
};

}  // namespace

std::unique_ptr<CallReader> make_json_reader(const ParserSpec& spec, bool has_marker) {
  return std::make_unique<JsonReader>(spec, has_marker);
}
std::unique_ptr<CallReader> make_named_json_reader(const ParserSpec& spec, std::string_view opened_by) {
  return std::make_unique<NamedJsonReader>(spec, opened_by);
}

}  // namespace pmetal::text::chat
