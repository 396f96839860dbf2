#include "text/chat/output_parser.h"

#include <algorithm>

#include "base/error.h"
#include "text/chat/call_reader.h"
#include "text/chat/harmony.h"

namespace pmetal::text::chat {

#define X(stem) extern const ParserSpec parser_##stem;
#include "text/output_parsers.inc"
#undef X

std::span<const ParserSpec* const> all_parsers() {
  static constexpr const ParserSpec* kParsers[] = {
#define X(stem) &parser_##stem,
#include "text/output_parsers.inc"
#undef X
  };
  return kParsers;
}

const ParserSpec* find_parser(std::string_view name) {
  for (const ParserSpec* spec : all_parsers())
    if (name == spec->name) return spec;
  return nullptr;
}

void OutputParser::feed(std::string_view bytes, std::vector<OutputEvent>& out) {
  for (const char c : bytes) push(c, out);
}
void OutputParser::finish(std::vector<OutputEvent>& out) { end(out); }

ParsedOutput collect(std::span<const OutputEvent> events) {
  ParsedOutput out;
  for (const OutputEvent& event : events) {
    switch (event.kind) {
      case OutputEvent::kContent: out.content += event.text; break;
      case OutputEvent::kReasoning: out.reasoning += event.text; break;
      case OutputEvent::kToolStart: out.calls.push_back({event.id, event.name, ""}); break;
      case OutputEvent::kToolArguments: out.calls.back().arguments += event.text; break;
      case OutputEvent::kToolEnd: break;
    }
  }
  return out;
}

bool prompt_opens_reasoning(const ParserSpec& spec, std::string_view prompt) {
  if (spec.reasoning_open.empty()) return false;
  const size_t open = prompt.rfind(spec.reasoning_open);
  if (open == std::string_view::npos) return false;
  // opened by the generation prompt itself: only white space follows
  return prompt.find_first_not_of(" \t\r\n", open + spec.reasoning_open.size()) == std::string_view::npos;
}

const ParserSpec& parser_for_template(std::string_view source) {
  const ParserSpec* best = nullptr;
  size_t best_size = 0;
  for (const ParserSpec* spec : all_parsers()) {
    size_t size = 0;
    bool fits = true, any = false;
    for (const std::string_view mark :
         {spec->opens[0], spec->call_open, spec->key_open, spec->name_close.size() > 3 ? spec->name_close : ""}) {
      if (mark.empty()) continue;
      any = true;
      // markers with a name inside stand in the template without it
      fits &= source.find(mark) != std::string_view::npos;
      size += mark.size();
    }
    if (any && fits && size > best_size) {
      best = spec;
      best_size = size;
    }
  }
  return best ? *best : *find_parser("plain");
}

namespace {

bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

void append_text(std::vector<OutputEvent>& out, OutputEvent::Kind kind, std::string_view text) {
  if (text.empty()) return;
  if (!out.empty() && out.back().kind == kind)
    out.back().text += text;
  else
    out.push_back({kind, std::string(text), -1, "", ""});
}

// Reasoning, content and blocks of calls that begin with a marker or begin the answer.
class MarkerParser : public OutputParser {
 public:
  MarkerParser(const ParserSpec& spec, ParserOptions options)
      : spec_(spec), options_(std::move(options)), sink_(options_, out_) {
    splits_ = options_.splits_reasoning && !spec.reasoning_open.empty();
    if (splits_ && options_.starts_in_reasoning) {
      state_ = kReasoning;
      skip_newline_ = true;
    }
    const bool has_tools = options_.tools.is(jinja::Kind::kList) && !options_.tools.items().empty();
    reads_calls_ = options_.calls_enabled && has_tools && spec.shape != CallShape::kNone;
  }

 private:
  enum State { kReasoning, kContent, kCalls };

  void push(char c, std::vector<OutputEvent>& out) override {
    out_ = &out;
    step(c);
  }

  void step(char c) {
    switch (state_) {
      case kReasoning: reasoning(c); return;
      case kContent: content(c); return;
      case kCalls: calls(c); return;
    }
  }

  void end(std::vector<OutputEvent>& out) override {
    out_ = &out;
    if (state_ == kCalls) {
      const std::string raw = raw_;
      const int started = sink_.n_started();
      if (!reader_->finish(sink_)) write(started > calls_at_raw_ ? std::string_view() : std::string_view(raw));
    } else if (state_ == kReasoning) {
      append_text(out, OutputEvent::kReasoning, held_newline_ ? "\n" + held_ : held_);
    } else if (!is_white(held_) || has_content_) {
      write(held_);
    }
    held_.clear();
  }

  static bool is_white(std::string_view s) { return std::all_of(s.begin(), s.end(), is_blank); }

  // content; white space before the first or after the last text beside a call is dropped
  void write(std::string_view text) {
    for (const char c : text) {
      if (is_blank(c) && (drops_blank_ || !has_content_)) {
        if (!drops_blank_) blank_ += c;
        continue;
      }
      if (!has_content_ && !drops_blank_) append_text(*out_, OutputEvent::kContent, blank_);
      blank_.clear();
      drops_blank_ = false;
      has_content_ = true;
      append_text(*out_, OutputEvent::kContent, std::string_view(&c, 1));
    }
  }

  void reasoning(char c) {
    held_ += c;
    while (!held_.empty()) {
      if (held_ == spec_.reasoning_close) {
        held_.clear();
        held_newline_ = false;
        state_ = kContent;
        drops_blank_ = true;
        return;
      }
      if (spec_.reasoning_close.starts_with(held_)) return;
      const char first = held_[0];
      held_.erase(0, 1);
      const bool skipped = skip_newline_ && first == '\n';
      skip_newline_ = false;
      if (skipped) continue;
      if (std::exchange(held_newline_, false)) append_text(*out_, OutputEvent::kReasoning, "\n");
      if (first == '\n')
        held_newline_ = true;  // perhaps the one before the closing marker
      else
        append_text(*out_, OutputEvent::kReasoning, std::string_view(&first, 1));
    }
  }

  void content(char c) {
    held_ += c;
    while (!held_.empty()) {
      const bool at_start = !has_content_ && sink_.n_started() == 0;
      bool is_prefix = false;
      if (splits_ && at_start && !was_reasoning_) {
        if (held_ == spec_.reasoning_open) {
          held_.clear();
          blank_.clear();
          was_reasoning_ = skip_newline_ = true;
          state_ = kReasoning;
          return;
        }
        is_prefix |= spec_.reasoning_open.starts_with(held_);
      }
      if (reads_calls_) {
        for (const std::string_view mark : {spec_.opens[0], spec_.opens[1], spec_.opens[2], spec_.call_open}) {
          if (mark.empty()) continue;
          if (held_ == mark) return open(mark);
          is_prefix |= mark.starts_with(held_);
        }
        if (spec_.is_bare && at_start && (held_ == "{" || held_ == "[")) return open("");
      }
      if (is_prefix) return;
      const char first = held_[0];
      held_.erase(0, 1);
      write(std::string_view(&first, 1));
    }
  }

  void open(std::string_view mark) {
    raw_ = held_;
    mark_ = mark;
    held_.clear();
    calls_at_raw_ = sink_.n_started();
    state_ = kCalls;
    reader_ = make_reader(spec_.shape, mark);
    if (mark.empty()) {  // the byte that opened it is part of the block
      const char c = raw_[0];
      raw_.clear();
      calls(c);
    }
  }

  std::unique_ptr<CallReader> make_reader(CallShape shape, std::string_view mark) const {
    switch (shape) {
      case CallShape::kNamedJson: return make_named_json_reader(spec_, mark);
      case CallShape::kTagged: return make_tagged_reader(spec_, mark);
      case CallShape::kPythonic: return make_pythonic_reader(spec_, !mark.empty());
      case CallShape::kGemma: return make_gemma_reader(spec_);
      default: return make_json_reader(spec_, !mark.empty());
    }
  }

  void calls(char c) {
    raw_ += c;
    const int before = sink_.n_started();
    const bool was_open = sink_.is_open();
    const CallReader::Status status = reader_->push(c, sink_);
    if (sink_.n_started() > before || was_open != sink_.is_open() || sink_.is_open()) {
      raw_.clear();  // what has been understood is no content any more
      if (blank_.empty() || !has_content_) blank_.clear();
    }
    switch (status) {
      case CallReader::Status::kMore: return;
      case CallReader::Status::kDone: leave(); return;
      case CallReader::Status::kDoneBefore:
        leave();
        step(c);
        return;
      case CallReader::Status::kReject: {
        // the list form of families that usually write the name first
        if (spec_.shape == CallShape::kNamedJson && !is_list_form_ && raw_.ends_with('[') &&
            sink_.n_started() == calls_at_raw_ && mark_ == spec_.opens[0]) {
          is_list_form_ = true;
          reader_ = make_json_reader(spec_, true);
          (void)reader_->push('[', sink_);
          return;
        }
        const std::string raw = raw_;
        state_ = kContent;
        reader_.reset();
        write(raw);
        return;
      }
    }
  }

  void leave() {
    state_ = kContent;
    reader_.reset();
    is_list_form_ = false;
    drops_blank_ = true;
    has_content_ = true;  // later calls and text are no longer at the start
  }

  const ParserSpec& spec_;
  ParserOptions options_;
  std::vector<OutputEvent>* out_ = nullptr;
  CallSink sink_;
  State state_ = kContent;
  bool splits_ = false, reads_calls_ = false, was_reasoning_ = false;
  bool skip_newline_ = false;  // the next byte, if a newline, belongs to the marker before it
  bool held_newline_ = false;  // a newline of reasoning not yet written
  bool drops_blank_ = false;   // white space is layout until text comes
  bool has_content_ = false;
  bool is_list_form_ = false;
  int calls_at_raw_ = 0;
  std::string held_;   // what may be the beginning of a marker
  std::string blank_;  // white space before the first text
  std::string raw_;    // the block of calls since its last call, to become content when it is none
  std::string_view mark_;
  std::unique_ptr<CallReader> reader_;
};

}  // namespace

std::unique_ptr<OutputParser> make_parser(const ParserSpec& spec, ParserOptions options) {
  if (spec.shape == CallShape::kHarmony) return make_harmony_parser(std::move(options));
  return std::make_unique<MarkerParser>(spec, std::move(options));
}

}  // namespace pmetal::text::chat
