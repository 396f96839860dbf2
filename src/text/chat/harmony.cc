// The harmony format. The answer begins inside a message header ("<|start|>assistant" was the prompt):
//   header <|message|> body (<|end|> | <|return|> | <|call|>) [<|start|> header …]
// The header names the channel after <|channel|> and may name a recipient, "to=functions.f", before or after it.
// analysis is reasoning, final and commentary to nobody are content, text to functions.f is the arguments of a call.
#include "text/chat/harmony.h"

#include "text/chat/call_reader.h"
#include "text/chat/json_scanner.h"

namespace pmetal::text::chat {
namespace {

constexpr std::string_view kStart = "<|start|>", kMessage = "<|message|>", kChannel = "<|channel|>";
constexpr std::string_view kEnds[] = {"<|end|>", "<|return|>", "<|call|>", kStart};
constexpr std::string_view kRecipient = "to=functions.";

std::string_view word_at(std::string_view text, size_t begin) {
  size_t end = begin;
  while (end < text.size() && text[end] != ' ' && text[end] != '<' && text[end] != '\n') ++end;
  return text.substr(begin, end - begin);
}

class HarmonyParser : public OutputParser {
 public:
  explicit HarmonyParser(ParserOptions options) : options_(std::move(options)), sink_(options_, out_) {}

 private:
  enum Body { kNone, kContent, kReasoning, kArguments };

  void push(char c, std::vector<OutputEvent>& out) override {
    out_ = &out;
    if (in_header_) {
      header_ += c;
      if (header_.ends_with(kMessage)) {
        header_.resize(header_.size() - kMessage.size());
        begin_body();
      }
      return;
    }
    held_ += c;
    while (!held_.empty()) {
      bool is_prefix = false;
      for (const std::string_view mark : kEnds) {
        if (held_ == mark) {
          held_.clear();
          end_body();
          return;
        }
        is_prefix |= mark.starts_with(held_);
      }
      if (is_prefix) return;
      const char first = held_[0];
      held_.erase(0, 1);
      write(first);
    }
  }

  void end(std::vector<OutputEvent>& out) override {
    out_ = &out;
    if (in_header_) {
      // a text without any marker is an answer in plain words
      if (!any_message_ && header_.find("<|") == std::string::npos) text(OutputEvent::kContent, header_);
    } else {
      for (const char c : held_) write(c);
      end_body();
    }
    header_.clear();
    held_.clear();
  }

  void text(OutputEvent::Kind kind, std::string_view s) {
    if (s.empty()) return;
    if (!out_->empty() && out_->back().kind == kind)
      out_->back().text += s;
    else
      out_->push_back({kind, std::string(s), -1, "", ""});
  }

  void begin_body() {
    in_header_ = false;
    any_message_ = true;
    const size_t channel_at = header_.find(kChannel);
    const std::string_view channel =
        channel_at == std::string::npos ? "final" : word_at(header_, channel_at + kChannel.size());
    const size_t recipient_at = header_.find(kRecipient);
    body_ = channel == "analysis" && options_.splits_reasoning ? kReasoning : kContent;
    if (recipient_at != std::string::npos && options_.calls_enabled) {
      const std::string_view name = word_at(header_, recipient_at + kRecipient.size());
      if (sink_.is_tool(name)) {
        body_ = kArguments;
        name_ = std::string(name);
        scanner_ = JsonScanner();
        is_valid_ = true;
        raw_.clear();
        sent_ = 0;
      }
    }
    header_.clear();
  }

  void write(char c) {
    if (body_ == kContent) return text(OutputEvent::kContent, std::string_view(&c, 1));
    if (body_ == kReasoning) return text(OutputEvent::kReasoning, std::string_view(&c, 1));
    if (body_ != kArguments || !is_valid_) return;
    if (raw_.empty() && (c == ' ' || c == '\n')) return;
    if (raw_.empty() && c != '{') {  // no arguments: the message is content
      body_ = kContent;
      return text(OutputEvent::kContent, std::string_view(&c, 1));
    }
    if (raw_.empty()) sink_.start(name_);
    raw_ += c;
    is_valid_ = scanner_.push(c);
    const size_t safe = std::min(scanner_.safe(), raw_.size());
    if (safe > sent_) sink_.arguments(std::string_view(raw_).substr(sent_, safe - sent_));
    sent_ = std::max(sent_, safe);
  }

  void end_body() {
    if (body_ == kArguments) {
      if (raw_.empty()) {
        sink_.start(name_);
        sink_.arguments("{}");
      } else if (!scanner_.is_done()) {
        sink_.arguments(scanner_.closing());
      }
      sink_.end();
    }
    body_ = kNone;
    in_header_ = true;
  }

  ParserOptions options_;
  std::vector<OutputEvent>* out_ = nullptr;
  CallSink sink_;
  bool in_header_ = true, any_message_ = false, is_valid_ = true;
  Body body_ = kNone;
  std::string header_, held_, name_, raw_;
  size_t sent_ = 0;
  JsonScanner scanner_;
};

}  // namespace

std::unique_ptr<OutputParser> make_harmony_parser(ParserOptions options) {
  return std::make_unique<HarmonyParser>(std::move(options));
}

}  // namespace pmetal::text::chat
