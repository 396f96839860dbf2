// pmetal infer: continue a text, answer a question by the model's chat template, or chat.
#include <chrono>
#include <istream>
#include <iterator>
#include <ostream>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "formats/text.h"
#include "infer/defaults.h"
#include "infer/engine.h"
#include "jobs/conversation.h"
#include "jobs/infer_benchmark.h"
#include "jobs/machine.h"
#include "jobs/model_session.h"
#include "jobs/spec.h"
#include "jobs/specs/infer.h"

namespace pmetal::jobs {
namespace {

using text::chat::OutputEvent;
using Clock = std::chrono::steady_clock;

infer::Mode to_infer(SamplingMode m) {
  switch (m) {
    case SamplingMode::kAuto: return infer::Mode::kAuto;
    case SamplingMode::kThinkingGeneral: return infer::Mode::kThinkingGeneral;
    case SamplingMode::kThinkingCoding: return infer::Mode::kThinkingCoding;
    case SamplingMode::kInstructGeneral: return infer::Mode::kInstructGeneral;
    case SamplingMode::kInstructReasoning: return infer::Mode::kInstructReasoning;
  }
  return infer::Mode::kAuto;
}

// explicit value > --mode > generation_config.json > what the family's makers recommend > built-in
infer::SamplingParams sampling(const InferOptions& o, const models::ModelInfo& info,
                               const infer::GenerationConfig& config) {
  infer::SamplingDefaults d;
  d.temperature = o.temperature;
  d.top_k = o.top_k;
  d.top_p = o.top_p;
  d.min_p = o.min_p;
  d.repetition_penalty = o.repetition_penalty;
  d.frequency_penalty = o.frequency_penalty;
  d.presence_penalty = o.presence_penalty;
  const infer::Mode mode = to_infer(o.mode);
  const auto preset = infer::family_preset(info.model_type, mode, !o.no_thinking);
  if (mode != infer::Mode::kAuto) {
    if (!preset)
      fail(ErrorCode::kUsage, "--mode: there is no preset for models of type \"{}\"; give --temperature, --top-p ...",
           info.model_type);
    d.fill_from(*preset);
  }
  d.fill_from(config.sampling);
  if (preset) d.fill_from(*preset);
  d.fill_from(infer::built_in_sampling());
  infer::SamplingParams p = d.params();
  p.seed = o.seed ? *o.seed : infer::random_seed();
  return p;
}

std::string read_prompt(const InferOptions& o, const JobContext& job) {
  const bool from_stdin = o.prompt_file == "-";
  std::string prompt = !o.prompt_file ? o.prompt
                       : from_stdin   ? std::string(std::istreambuf_iterator<char>(job.input()), {})
                                      : read_text(*o.prompt_file);
  if (!formats::is_valid_utf8(prompt))
    fail(ErrorCode::kInvalidInput, "{}: is not UTF-8 text; convert it, as with iconv -t utf-8",
         !o.prompt_file ? "--prompt"
         : from_stdin   ? "stdin"
                        : *o.prompt_file);
  return prompt;
}

struct Answer {
  text::chat::ParsedOutput parsed;  // without a chat template all is content
  infer::Finish finish;
  bool is_stopped = false;  // by the user
  int64_t prompt_tokens = 0, tokens = 0;
  double first_ms = 0, tok_per_sec = 0;
};

// Shows an answer while it comes, with labels around the reasoning.
class AnswerWriter {
 public:
  AnswerWriter(const JobContext& job, bool hides_thinking) : job_(job), hides_thinking_(hides_thinking) {}

  void show(const OutputEvent& e) {
    switch (e.kind) {
      case OutputEvent::kReasoning:
        if (hides_thinking_) return;
        if (!in_reasoning_) write("[thinking]\n");
        in_reasoning_ = true;
        return write(e.text);
      case OutputEvent::kContent: end_reasoning(); return write(e.text);
      case OutputEvent::kToolStart:
        end_reasoning();
        return write(fmt::format("{}[tool call] {} ", at_line_start_ ? "" : "\n", e.name));
      case OutputEvent::kToolArguments: return write(e.text);
      case OutputEvent::kToolEnd: return write("\n");
    }
  }

 private:
  void end_reasoning() {
    if (in_reasoning_) write(at_line_start_ ? "[answer]\n" : "\n[answer]\n");
    in_reasoning_ = false;
  }
  void write(std::string text) {
    if (text.empty()) return;
    at_line_start_ = text.back() == '\n';
    job_.emit(TokenEvent{std::move(text), index_++});
  }

  const JobContext& job_;
  bool hides_thinking_, in_reasoning_ = false, at_line_start_ = true;
  int64_t index_ = 0;
};

Answer generate(const JobContext& job, infer::Engine& engine, infer::Request request, text::chat::OutputParser* parser,
                bool hides_thinking) {
  Answer answer;
  answer.prompt_tokens = static_cast<int64_t>(request.prompt.size());
  AnswerWriter writer(job, hides_thinking);
  std::vector<OutputEvent> all;
  const auto take = [&](std::vector<OutputEvent> events) {
    for (OutputEvent& e : events) {
      writer.show(e);
      all.push_back(std::move(e));
    }
  };
  const Clock::time_point start = Clock::now();
  Clock::time_point first = start, last = start;
  bool is_finished = false;
  const auto generation = engine.submit(std::move(request), [&](const infer::Update& u) {
    if (u.token) {
      last = Clock::now();
      if (answer.tokens++ == 0) first = last;
    }
    std::vector<OutputEvent> events;
    if (parser)
      parser->feed(u.text, events);
    else if (!u.text.empty())
      events.push_back({.kind = OutputEvent::kContent, .text = u.text, .id = {}, .name = {}});
    if (u.finish) {
      is_finished = true;
      answer.finish = *u.finish;
    }
    take(std::move(events));
  });
  while (!is_finished && !answer.is_stopped) {
    engine.step();
    answer.is_stopped = !is_finished && (job.take_interrupt() || job.is_cancelled());
  }
  if (parser) {
    std::vector<OutputEvent> events;
    parser->finish(events);
    take(std::move(events));
  }
  answer.parsed = text::chat::collect(all);
  if (answer.finish.reason == infer::Finish::Reason::kError)
    fail(ErrorCode::kNumerical, "token {} of the answer: {}", answer.tokens + 1, answer.finish.message);
  const auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
  answer.first_ms = 1000 * seconds(first - start);
  if (answer.tokens > 1)
    answer.tok_per_sec = static_cast<double>(answer.tokens - 1) / seconds(last - first);
  else if (answer.tokens == 1)
    answer.tok_per_sec = 1 / seconds(last - start);
  return answer;
}

Json to_json(const Answer& a, const InferOptions& o, uint64_t seed, const std::string& device) {
  Json j;
  j["model"] = o.model;
  j["text"] = a.parsed.content;
  if (!a.parsed.reasoning.empty() && !o.hide_thinking) j["reasoning"] = a.parsed.reasoning;
  if (!a.parsed.calls.empty()) {
    j["tool_calls"] = Json::array();
    for (const auto& c : a.parsed.calls)
      j["tool_calls"].push_back(
          {{"id", c.id}, {"type", "function"}, {"function", {{"name", c.name}, {"arguments", c.arguments}}}});
  }
  const bool is_stop = a.finish.reason == infer::Finish::Reason::kStop;
  j["finish_reason"] = a.is_stopped              ? "cancelled"
                       : !a.parsed.calls.empty() ? "tool_calls"
                       : is_stop                 ? "stop"
                                                 : "length";
  if (a.finish.is_repetition) j["stop_detail"] = "repetition";
  if (a.finish.stop_string) j["stop_sequence"] = o.stop[*a.finish.stop_string];
  j["prompt_tokens"] = a.prompt_tokens;
  j["completion_tokens"] = a.tokens;
  j["tok_per_sec"] = a.tok_per_sec;
  j["ttft_ms"] = a.first_ms;
  j["seed_used"] = seed;
  j["device"] = device;
  return j;
}

// One message per line; /exit ends, /reset forgets the conversation. Ctrl-C stops an answer, not the chat.
void chat(const JobContext& job, Conversation& conversation, const std::string& first_message,
          const std::function<Answer(const ChatFormat::Prompt&)>& answer) {
  job.want_interrupts();
  job.log(LogLevel::kInfo, "one message per line; /reset begins anew, /exit or Ctrl-D ends, Ctrl-C stops an answer");
  std::string line = first_message;
  const auto read = [&] { return !job.is_cancelled() && static_cast<bool>(std::getline(job.input(), line)); };
  if (line.empty() && !read()) return;
  do {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    if (line == "/exit" || line == "/quit") return;
    if (line == "/reset") {
      conversation.reset();
      job.log(LogLevel::kInfo, "the conversation is forgotten");
      continue;
    }
    if (line.starts_with('/') && line.find_first_of(" /", 1) == std::string::npos) {
      job.log(LogLevel::kInfo, "{}: no such command; there are /reset and /exit", line);
      continue;
    }
    if (!formats::is_valid_utf8(line)) {
      job.log(LogLevel::kError, "that line is not UTF-8 text");
      continue;
    }
    conversation.add_user(line);
    try {
      const Answer a = answer(conversation.prompt());
      if (a.is_stopped && a.tokens == 0)
        conversation.take_back();
      else
        conversation.add_answer(a.parsed);
    } catch (const Error& e) {  // a conversation that is too long, say, need not end the chat
      if (e.code() != ErrorCode::kUsage && e.code() != ErrorCode::kInvalidInput) throw;
      conversation.take_back();
      job.log(LogLevel::kError, "{}", e.what());
    }
  } while (read());
}

// what a lack of memory is explained by
std::string memory_plan(const ModelSession& s, int64_t pages) {
  const int64_t size = size_of(s.model->dtype), weights = models::count_parameters(*s.model).total * size;
  int64_t token = 0;
  for (const models::LayerMemory& m : s.model->info().memory) token += m.kv_heads * (m.d_k + m.d_v) * size;
  const int64_t tokens = pages * nn::kPageTokens;
  return fmt::format("weights {:.2f} GB, keys and values of {} tokens {:.2f} GB", static_cast<double>(weights) / 1e9,
                     tokens, static_cast<double>(tokens * token) / 1e9);
}

}  // namespace

void run_infer(const JobOptions& options, JobContext& job) {
  const InferOptions& o = options.as<InferOptions>();
  if (job.json && o.interactive) fail(ErrorCode::kUsage, "--json: contradicts --interactive");
  ModelSession s = open_session(
      job, {.model = o.model, .adapter = o.lora, .dtype = o.dtype, .device = o.device, .threads = o.threads});
  if (o.benchmark) return run_infer_benchmark(o, job, s);
  const models::ModelInfo& info = s.model->info();
  job.phase("loading_tokenizer", s.checkpoint->folder().string());
  const TextSession text = open_text(s.checkpoint->folder(), info);
  const infer::GenerationConfig config = infer::read_generation_config(s.checkpoint->folder());
  const infer::SamplingParams params = sampling(o, info, config);
  const std::string device = device_name(*s.ctx);

  std::optional<Conversation> conversation;
  if (o.chat || o.interactive) {
    conversation.emplace(text,
                         ConversationOptions{.system = o.system, .tools_file = o.tools, .thinking = !o.no_thinking});
    if (o.no_thinking && !conversation->format().template_knows_thinking())
      job.log(LogLevel::kWarn, "--no-thinking: the model's chat template has no such switch");
  }
  std::string prompt = read_prompt(o, job);
  ChatFormat::Prompt first;
  if (conversation && !o.interactive) {
    conversation->add_user(prompt);
    first = conversation->prompt();
  } else if (!o.interactive) {
    first.ids = text.tokenizer->encode_ids(prompt);
  }
  if (o.profile_layers) show_layer_profile(o, job, s, first.ids);

  const auto n_prompt = static_cast<int64_t>(first.ids.size());
  const int64_t room = o.interactive ? info.max_positions : std::min(info.max_positions, n_prompt + o.max_tokens);
  const int64_t pages = std::max<int64_t>(1, nn::KvStore::pages_for(room));
  s.ctx->allocator().set_plan(memory_plan(s, pages));
  infer::Engine engine(*s.ctx, *s.model,
                       {.max_pages = pages,
                        .max_context = info.max_positions,
                        .batch_invariant = o.batch_invariant,
                        .eos_ids = infer::end_ids(config, info, *text.tokenizer, text.eos),
                        .tokenizer = text.tokenizer.get()});
  const auto answer = [&](const ChatFormat::Prompt& p) {
    infer::Request r{.prompt = p.ids, .sampling = params, .stop = o.stop};
    const int64_t left = engine.max_context() - static_cast<int64_t>(p.ids.size());
    r.max_tokens = o.max_tokens;
    if (!options.was_given("max_tokens") && left >= 1) r.max_tokens = std::min(o.max_tokens, left);
    r.detect_repetition = o.detect_repetition;
    r.skip_special = !conversation || !conversation->format().markers_are_special();
    Answer a = generate(job, engine, std::move(r), p.parser.get(), o.hide_thinking);
    job.summary.total_tokens += a.tokens;
    job.emit(InferenceDone{a.tokens, a.tok_per_sec, a.first_ms, device});
    return a;
  };
  if (o.interactive) return chat(job, *conversation, prompt, answer);
  job.phase("generating");
  const Answer a = answer(first);
  if (job.json) job.data() << to_json(a, o, params.seed, device).dump(2) << "\n";
  job.stop_if_cancelled();
}

}  // namespace pmetal::jobs
