#include "jobs/events.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace pmetal::jobs {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kSchema = 1;
constexpr std::string_view kLevels[] = {"trace", "debug", "info", "warn", "error", "off"};

template <class T>
void put_if(Json& object, const char* name, const std::optional<T>& value) {
  if (value) object[name] = *value;
}

Json numbers(const ExtraNumbers& values) {
  Json object = Json::object();
  for (const auto& [name, value] : values) object[name] = value;
  return object;
}

// the fields of each event beside event, job_id and ts
struct Writer {
  Json& out;

  const char* operator()(const StartedEvent& e) const {
    out["kind"] = e.kind;
    out["schema"] = kSchema;
    return "started";
  }
  const char* operator()(const PhaseEvent& e) const {
    out["phase"]["phase"] = e.phase;
    const char* name = e.phase == "server_ready" ? "address" : e.phase == "custom" ? "name" : "reason";
    if (!e.detail.empty()) out["phase"][name] = e.detail;
    return "phase";
  }
  const char* operator()(const StepMetric& e) const {
    Json& p = out["payload"];
    p["kind"] = "step";
    p["step"] = e.step;
    p["epoch"] = e.epoch;
    p["total_epochs"] = e.total_epochs;
    p["total_steps"] = e.total_steps;
    p["loss"] = e.loss;
    p["lr"] = e.lr;
    p["tok_sec"] = e.tok_sec;
    p["total_ms"] = e.total_ms;
    p["tokens"] = e.tokens;
    put_if(p, "grad_norm", e.grad_norm);
    p["gpu_fwd_bwd_ms"] = e.fwd_bwd_ms;  // the name of the format; on a CPU the time of its forward and backward
    p["optimizer_ms"] = e.optimizer_ms;
    p["io_staging_ms"] = e.io_staging_ms;
    p["overhead_ms"] = e.overhead_ms;
    put_if(p, "mem_gb", e.mem_gb);
    put_if(p, "mfu", e.mfu);
    put_if(p, "entropy", e.entropy);
    put_if(p, "token_accuracy", e.token_accuracy);
    for (const auto& [name, value] : e.extra) p[name] = value;
    return "metric";
  }
  const char* operator()(const EvalMetricEvent& e) const {
    Json& p = out["payload"];
    p["kind"] = "eval";
    p["step"] = e.step;
    p["loss"] = e.loss;
    p["perplexity"] = e.perplexity;
    put_if(p, "accuracy", e.accuracy);
    p["custom"] = numbers(e.custom);
    return "metric";
  }
  const char* operator()(const BenchTrial& e) const {
    out["payload"] = {{"kind", "bench_trial"},        {"label", e.label},   {"tokens", e.tokens},
                      {"tok_per_sec", e.tok_per_sec}, {"p50_ms", e.p50_ms}, {"p99_ms", e.p99_ms}};
    return "metric";
  }
  const char* operator()(const InferenceDone& e) const {
    out["payload"] = {{"kind", "inference_done"},
                      {"tokens", e.tokens},
                      {"tok_per_sec", e.tok_per_sec},
                      {"ttft_ms", e.ttft_ms},
                      {"device", e.device}};
    return "metric";
  }
  const char* operator()(const TokenEvent& e) const {
    out["token"] = e.token;
    out["index"] = e.index;
    return "token";
  }
  const char* operator()(const LogEvent& e) const {
    out["level"] = name_of(e.level);
    out["line"] = e.line;
    return "log";
  }
  const char* operator()(const ProgressEvent& e) const {
    Json& p = out["progress"];
    p["current"] = e.current;
    put_if(p, "total", e.total);
    p["label"] = e.label;
    return "progress";
  }
  const char* operator()(const CompletedEvent& e) const {
    Json& s = out["summary"];
    put_if(s, "final_loss", e.summary.final_loss);
    s["total_steps"] = e.summary.total_steps;
    s["total_tokens"] = e.summary.total_tokens;
    put_if(s, "output_path", e.summary.output_path);
    s["extra"] = numbers(e.summary.extra);
    return "completed";
  }
  const char* operator()(const FailedEvent& e) const {
    out["error"] = e.error;
    return "failed";
  }
  const char* operator()(const CancelledEvent&) const { return "cancelled"; }
  const char* operator()(const ArtefactEvent& e) const {
    out["path"] = e.path;
    out["role"] = e.role;
    return "artefact";
  }
};

}  // namespace

std::string_view name_of(LogLevel level) { return kLevels[static_cast<size_t>(level)]; }

std::optional<LogLevel> log_level_from_name(std::string_view name) {
  for (size_t i = 0; i < std::size(kLevels); ++i)
    if (kLevels[i] == name) return static_cast<LogLevel>(i);
  return std::nullopt;
}

std::string to_json_line(const JobEvent& event) {
  Json line;
  line["event"] = "";
  line["job_id"] = event.job_id;
  line["event"] = std::visit(Writer{line}, event.body);
  line["ts"] = event.ts;
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void Broadcast::emit(const JobEvent& event) {
  const std::lock_guard lock(mutex_);
  for (EventSink* sink : sinks_) sink->emit(event);
}

JsonLinesSink::JsonLinesSink(std::string path) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) fail(ErrorCode::kIo, "{}: cannot open for appending: {}", path_, std::strerror(errno));
}

JsonLinesSink::~JsonLinesSink() { ::close(fd_); }

void JsonLinesSink::emit(const JobEvent& event) {
  const std::string line = to_json_line(event) + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(fd_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ErrorCode::kIo, "{}: cannot write: {}", path_, std::strerror(errno));
    done += static_cast<size_t>(n);
  }
}

}  // namespace pmetal::jobs
