#include <algorithm>
#include <deque>
#include <regex>

#include "data/record.h"
#include "infer/defaults.h"
#include "infer/engine.h"
#include "jobs/conversation.h"
#include "jobs/eval_methods.h"
#include "text/template/json.h"

namespace pmetal::jobs {
namespace {

using text::jinja::Kind;
using text::jinja::Value;

struct Question {
  ChatFormat::Prompt prompt;
  std::string expected;
};

// A chat's last assistant turn is the expected answer, what stands before it the prompt; pairs likewise.
class QuestionReader {
 public:
  QuestionReader(const EvalOptions& o, const TextSession& text)
      : text_(text),
        source_(data::open_source(o.dataset, "validation")),
        parser_({o.text_column.value_or(""), o.text_columns, o.column_separator, o.prompt_column.value_or(""),
                 o.response_column.value_or("")}),
        left_(o.num_samples > 0 ? o.num_samples : INT64_MAX) {
    if (text.chat) format_.emplace(text);
  }

  bool next(Question& question) {
    data::Row row;
    if (left_ == 0 || !source_->next(row)) return false;
    --left_;
    const data::Record record = parser_.parse(row);
    if (record.is_chat() && (format_ || record.prompt.empty())) {
      if (!format_) fail(ErrorCode::kNotFound, "{}", text_.no_chat);
      question = from_chat(record);
    } else if (!record.completion.empty()) {
      question = {{text_.tokenizer->encode_ids(record.prompt), nullptr}, record.completion};
    } else {
      fail(ErrorCode::kInvalidInput,
           "{}: {} rows have no answer to compare with; chats or prompt and answer are needed", record.where,
           name_of(record.format));
    }
    if (!record.answer.empty()) question.expected = record.answer;
    return true;
  }

  bool markers_are_special() const { return format_ && format_->markers_are_special(); }

 private:
  Question from_chat(const data::Record& record) const {
    const Value messages = text::jinja::parse_json(record.messages);
    const std::vector<Value>& all = messages.items();
    const auto role = [](const Value& m) {
      const Value* r = m.is(Kind::kDict) ? m.dict().find("role") : nullptr;
      return r && r->is_string() ? r->text() : std::string();
    };
    size_t last = all.size();
    while (last > 0 && role(all[last - 1]) != "assistant") --last;
    if (last <= 1) fail(ErrorCode::kInvalidInput, "{}: the chat has no assistant turn behind a question", record.where);
    const Value* content = all[last - 1].dict().find("content");
    if (!content || !content->is_string())
      fail(ErrorCode::kInvalidInput, "{}: the last assistant turn has no text to compare with", record.where);
    const Value tools = record.tools.empty() ? Value() : text::jinja::parse_json(record.tools);
    return {format_->prompt(Value::list({all.begin(), all.begin() + static_cast<std::ptrdiff_t>(last) - 1}), tools, {}),
            content->text()};
  }

  const TextSession& text_;
  std::optional<ChatFormat> format_;
  std::unique_ptr<data::Source> source_;
  data::RecordParser parser_;
  int64_t left_;
};

struct Running {
  Question question;
  std::vector<text::chat::OutputEvent> events;
  std::string text;  // where there is no parser
  bool is_done = false;
  std::string error;
  std::unique_ptr<infer::Generation> generation;  // the last member: it goes first
};

}  // namespace

std::string answer_part(const std::string& answer, AnswerPart part) {
  if (part == AnswerPart::kExact) return answer;
  if (part == AnswerPart::kStripped) {
    const size_t begin = answer.find_first_not_of(" \t\r\n\v\f");
    if (begin == std::string::npos) return {};
    return answer.substr(begin, answer.find_last_not_of(" \t\r\n\v\f") + 1 - begin);
  }
  // the last number, its thousands separators left out
  static const std::regex kNumber(R"([-+]?\d[\d,]*(\.\d+)?)");
  std::string last;
  for (std::sregex_iterator it(answer.begin(), answer.end(), kNumber), end; it != end; ++it) last = it->str();
  std::erase(last, ',');
  if (last.starts_with('+')) last.erase(0, 1);
  return last;
}

ExactMatchResult eval_exact_match(const EvalOptions& o, const JobContext& job, ModelSession& s,
                                  const TextSession& text) {
  const models::ModelInfo& info = s.model->info();
  QuestionReader reader(o, text);
  // what every sequence of a full batch could need, were all as long as the context
  const int64_t pages = o.batch_size * nn::KvStore::pages_for(info.max_positions);
  infer::Engine engine(*s.ctx, *s.model,
                       {.max_pages = pages,
                        .max_sequences = o.batch_size,
                        .eos_ids = infer::end_ids(infer::read_generation_config(s.checkpoint->folder()), info,
                                                  *text.tokenizer, text.eos),
                        .tokenizer = text.tokenizer.get()});
  ExactMatchResult result;
  int64_t shown_mistakes = 0;
  std::deque<Running> running;
  const auto finish = [&](Running& r) {
    if (!r.error.empty()) fail(ErrorCode::kNumerical, "an answer to {} failed: {}", o.dataset, r.error);
    std::string answer = std::move(r.text);
    if (r.question.prompt.parser) {
      r.question.prompt.parser->finish(r.events);
      answer = text::chat::collect(r.events).content;
    }
    ++result.samples;
    const std::string got = answer_part(answer, o.compare), want = answer_part(r.question.expected, o.compare);
    result.correct += got == want;
    if (got != want && ++shown_mistakes <= 20) job.log(LogLevel::kDebug, "expected \"{}\", got \"{}\"", want, got);
    job.progress("evaluating", result.samples, o.num_samples > 0 ? std::optional(o.num_samples) : std::nullopt);
  };
  bool more = true;
  while (more || !running.empty()) {
    job.stop_if_cancelled();
    // twice the batch waits, so that the batch stays full
    while (more && static_cast<int64_t>(running.size()) < 2 * o.batch_size) {
      Question question;
      more = reader.next(question);
      if (!more) break;
      Running& r = running.emplace_back();
      r.question = std::move(question);
      const int64_t left = engine.max_context() - static_cast<int64_t>(r.question.prompt.ids.size());
      r.generation = engine.submit({.prompt = r.question.prompt.ids,
                                    .sampling = {.temperature = 0},
                                    .max_tokens = std::max<int64_t>(1, std::min(o.max_tokens, left)),
                                    .skip_special = !reader.markers_are_special()},
                                   [&r, &result](const infer::Update& u) {
                                     if (r.question.prompt.parser)
                                       r.question.prompt.parser->feed(u.text, r.events);
                                     else
                                       r.text += u.text;
                                     result.generated_tokens += u.token.has_value();
                                     if (!u.finish) return;
                                     r.is_done = true;
                                     if (u.finish->reason == infer::Finish::Reason::kError) r.error = u.finish->message;
                                   });
    }
    engine.step();
    for (Running& r : running)
      if (r.is_done && r.generation) {
        finish(r);
        r.generation.reset();
      }
    while (!running.empty() && !running.front().generation) running.pop_front();
  }
  if (result.samples == 0) fail(ErrorCode::kInvalidInput, "{}: holds no data", o.dataset);
  return result;
}

}  // namespace pmetal::jobs
