// Calls whose name and arguments stand in tags; values are typed by the tool's schema.
#include "text/chat/call_reader.h"
#include "text/template/json.h"
#include "text/template/unicode.h"

namespace pmetal::text::chat {
namespace {

class TaggedReader : public CallReader {
 public:
  TaggedReader(const ParserSpec& spec, std::string_view opened_by) : spec_(spec) {
    has_outer_ = opened_by != spec.call_open;
    state_ = has_outer_ ? kBetween : kName;
  }

  Status push(char c, CallSink& sink) override {
    switch (state_) {
      case kBetween: {
        const int hit = matcher_.push(c, {spec_.call_open, spec_.closes[0], spec_.closes[1]});
        if (hit == LiteralMatcher::kMore) return Status::kMore;
        if (hit == LiteralMatcher::kMismatch) return any_ ? Status::kDoneBefore : Status::kReject;
        if (hit > 0) return any_ ? Status::kDone : Status::kReject;
        state_ = kName;
        text_.clear();
        return Status::kMore;
      }
      case kName: {
        text_ += c;
        for (const std::string_view mark : {spec_.name_close, spec_.key_open, spec_.call_close}) {
          if (mark.empty() || !text_.ends_with(mark)) continue;
          name_ = std::string(jinja::unicode::strip(std::string_view(text_).substr(0, text_.size() - mark.size()),
                                                    nullptr, true, true));
          if (!sink.is_tool(name_)) return Status::kReject;
          sink.start(name_);
          is_first_ = true;
          text_.clear();
          if (mark == spec_.call_close) return end_call(sink);
          state_ = mark == spec_.key_open ? kKey : kBody;
          return Status::kMore;
        }
        return text_.size() > 512 ? Status::kReject : Status::kMore;
      }
      case kBody: {
        const int hit = matcher_.push(c, {spec_.key_open, spec_.call_close});
        if (hit == LiteralMatcher::kMore) return Status::kMore;
        if (hit == LiteralMatcher::kMismatch) return give_up(sink);
        text_.clear();
        if (hit == 1) return end_call(sink);
        state_ = kKey;
        return Status::kMore;
      }
      case kKey:
        text_ += c;
        if (!text_.ends_with(spec_.key_close)) return text_.size() > 512 ? give_up(sink) : Status::kMore;
        key_ = text_.substr(0, text_.size() - spec_.key_close.size());
        text_.clear();
        state_ = !spec_.attribute_close.empty() ? kAttributes : !spec_.value_open.empty() ? kValueOpen : kValue;
        return Status::kMore;
      case kAttributes:
        text_ += c;
        if (!text_.ends_with(spec_.attribute_close)) return text_.size() > 512 ? give_up(sink) : Status::kMore;
        is_string_ = text_.find("string=\"true\"") != std::string::npos;
        text_.clear();
        state_ = kValue;
        return Status::kMore;
      case kValueOpen: {
        const int hit = matcher_.push(c, {spec_.value_open});
        if (hit == LiteralMatcher::kMore) return Status::kMore;
        if (hit == LiteralMatcher::kMismatch) return give_up(sink);
        text_.clear();
        state_ = kValue;
        return Status::kMore;
      }
      case kValue:
        text_ += c;
        if (!text_.ends_with(spec_.value_close)) return Status::kMore;
        text_.resize(text_.size() - spec_.value_close.size());
        value(sink);
        text_.clear();
        state_ = kBody;
        return Status::kMore;
    }
    return Status::kReject;
  }

  bool finish(CallSink& sink) override {
    if (sink.is_open()) {
      end_call(sink);
      return true;
    }
    return any_ && state_ == kBetween;
  }

 private:
  void value(CallSink& sink) {
    if (spec_.trims_newline) {
      if (text_.starts_with("\n")) text_.erase(0, 1);
      if (text_.ends_with("\n")) text_.pop_back();
    }
    std::string json;
    if (is_string_)
      json = jinja::to_json(jinja::Value::string(text_));
    else
      json = sink.typed(name_, key_, text_);
    if (is_first_) sink.arguments("{");
    sink.arguments((is_first_ ? "" : ", ") + jinja::to_json(jinja::Value::string(key_)) + ": " + json);
    is_first_ = is_string_ = false;
  }

  Status end_call(CallSink& sink) {
    sink.arguments(is_first_ ? "{}" : "}");
    sink.end();
    any_ = true;
    state_ = kBetween;
    matcher_.reset();
    return has_outer_ ? Status::kMore : Status::kDone;
  }

  Status give_up(CallSink& sink) {
    end_call(sink);
    return Status::kDoneBefore;
  }

  enum State { kBetween, kName, kBody, kKey, kAttributes, kValueOpen, kValue };
  const ParserSpec& spec_;
  State state_;
  bool has_outer_, any_ = false, is_first_ = true, is_string_ = false;
  std::string text_, name_, key_;
  LiteralMatcher matcher_;
};

}  // namespace

std::unique_ptr<CallReader> make_tagged_reader(const ParserSpec& spec, std::string_view opened_by) {
  return std::make_unique<TaggedReader>(spec, opened_by);
}

}  // namespace pmetal::text::chat
