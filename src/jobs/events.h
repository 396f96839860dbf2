// What a job tells while it runs. Every face (terminal, log file, web page, history) renders the same stream.
// As JSON each event is one object per line with the tag `event`; unknown fields are to be ignored by readers.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace pmetal::jobs {

// named numbers a method adds to an event
using ExtraNumbers = std::vector<std::pair<std::string, double>>;

struct StartedEvent {
  std::string kind;  // the command
};
struct PhaseEvent {
  std::string phase;        // resolving_model, loading_model, training, saving_weights, ... (surface list)
  std::string detail = {};  // the reason or the name, where the phase has one
};
struct StepMetric {
  int64_t step = 0, total_steps = 0;  // step counts from 1
  double epoch = 0;                   // 0.5 = half of the first pass
  int64_t total_epochs = 0;
  double loss = 0;
  double lr = 0;
  double tok_sec = 0;
  double total_ms = 0;  // wall time of the step
  int64_t tokens = 0;   // seen so far, over all steps
  std::optional<double> grad_norm;
  double fwd_bwd_ms = 0, optimizer_ms = 0, io_staging_ms = 0, overhead_ms = 0;
  std::optional<double> mem_gb;  // resident memory, 1e9 bytes
  std::optional<double> mfu;     // part of the measured matmul peak
  std::optional<double> entropy, token_accuracy;
  ExtraNumbers extra;
};
struct EvalMetricEvent {
  int64_t step = 0;
  double loss = 0, perplexity = 0;
  std::optional<double> accuracy;
  ExtraNumbers custom;
};
struct BenchTrial {
  std::string label;
  int64_t tokens = 0;
  double tok_per_sec = 0, p50_ms = 0, p99_ms = 0;
};
struct InferenceDone {
  int64_t tokens = 0;
  double tok_per_sec = 0, ttft_ms = 0;
  std::string device;
};
struct TokenEvent {
  std::string token;  // valid UTF-8, may be empty while a character is incomplete
  int64_t index = 0;
};
enum class LogLevel : uint8_t { kTrace, kDebug, kInfo, kWarn, kError, kOff };
std::string_view name_of(LogLevel level);
std::optional<LogLevel> log_level_from_name(std::string_view name);
struct LogEvent {
  LogLevel level = LogLevel::kInfo;
  std::string line;
};
struct ProgressEvent {
  int64_t current = 0;
  std::optional<int64_t> total;
  std::string label;
};
struct JobSummary {
  std::optional<double> final_loss;
  int64_t total_steps = 0, total_tokens = 0;
  std::optional<std::string> output_path;
  ExtraNumbers extra;
};
struct CompletedEvent {
  JobSummary summary;
};
struct FailedEvent {
  std::string error;
};
struct CancelledEvent {};
struct ArtefactEvent {
  std::string path, role;  // role: adapter, model, checkpoint, metrics, config, ...
};

struct JobEvent {
  std::string job_id;
  int64_t ts = 0;  // unix seconds
  std::variant<StartedEvent, PhaseEvent, StepMetric, EvalMetricEvent, BenchTrial, InferenceDone, TokenEvent, LogEvent,
               ProgressEvent, CompletedEvent, FailedEvent, CancelledEvent, ArtefactEvent>
      body;
};

std::string to_json_line(const JobEvent& event);  // without the line end; NaN and infinity become null

class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void emit(const JobEvent& event) = 0;
};

// hands each event to every sink, one event at a time whichever thread emits
class Broadcast : public EventSink {
 public:
  void add(EventSink* sink) { sinks_.push_back(sink); }  // borrowed; before the job starts
  void emit(const JobEvent& event) override;

 private:
  std::mutex mutex_;
  std::vector<EventSink*> sinks_;
};

// Appends one line per event; a line is in the file when emit() returns. Throws Error(kIo).
class JsonLinesSink : public EventSink {
 public:
  explicit JsonLinesSink(std::string path);
  ~JsonLinesSink() override;
  JsonLinesSink(const JsonLinesSink&) = delete;
  JsonLinesSink& operator=(const JsonLinesSink&) = delete;
  void emit(const JobEvent& event) override;

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace pmetal::jobs
