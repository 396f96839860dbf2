#include "app/log.h"

#include <cstdlib>
#include <ctime>
#include <filesystem>

#include <fmt/chrono.h>

#include "base/error.h"

namespace pmetal::app {
namespace {

namespace fs = std::filesystem;
using jobs::LogLevel;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : value;
}

// $XDG_CACHE_HOME/pmetal or ~/.cache/pmetal; empty when neither is known
fs::path cache_folder() {
  if (const std::string cache = environment("XDG_CACHE_HOME"); !cache.empty()) return fs::path(cache) / "pmetal";
  if (const std::string home = environment("HOME"); !home.empty()) return fs::path(home) / ".cache" / "pmetal";
  return {};
}

struct LogLine {
  LogLevel level;
  std::string text;
};

// what of an event belongs in a log; an empty text means nothing
struct LineOf {
  LogLine operator()(const jobs::StartedEvent& e) const { return {LogLevel::kInfo, "started " + e.kind}; }
  LogLine operator()(const jobs::PhaseEvent& e) const {
    return {LogLevel::kInfo, e.phase + (e.detail.empty() ? "" : ": " + e.detail)};
  }
  LogLine operator()(const jobs::LogEvent& e) const { return {e.level, e.line}; }
  LogLine operator()(const jobs::StepMetric& e) const {
    return {LogLevel::kDebug,
            fmt::format("step {} of {}: loss {:.5g}, lr {:.4g}", e.step, e.total_steps, e.loss, e.lr)};
  }
  LogLine operator()(const jobs::EvalMetricEvent& e) const {
    return {LogLevel::kInfo,
            fmt::format("evaluation at step {}: loss {:.5g}, perplexity {:.5g}", e.step, e.loss, e.perplexity)};
  }
  LogLine operator()(const jobs::ArtefactEvent& e) const {
    return {LogLevel::kInfo, "wrote " + e.path + " (" + e.role + ")"};
  }
  LogLine operator()(const jobs::CompletedEvent&) const { return {LogLevel::kInfo, "completed"}; }
  LogLine operator()(const jobs::FailedEvent& e) const { return {LogLevel::kError, "failed: " + e.error}; }
  LogLine operator()(const jobs::CancelledEvent&) const { return {LogLevel::kWarn, "cancelled"}; }
  template <class Other>
  LogLine operator()(const Other&) const {
    return {LogLevel::kTrace, {}};
  }
};

}  // namespace

LogLevel log_level() {
  const std::string word = environment("PMETAL_LOG");
  if (word.empty()) return LogLevel::kInfo;
  const std::optional<LogLevel> level = jobs::log_level_from_name(word);
  if (!level) fail(ErrorCode::kUsage, "PMETAL_LOG: \"{}\" is not one of trace, debug, info, warn, error, off", word);
  return *level;
}

LogFileSink::LogFileSink(const std::string& front_end, LogLevel level) : level_(std::min(level, LogLevel::kDebug)) {
  const std::string named = environment("PMETAL_LOG_FILE");
  const fs::path path = named.empty() ? cache_folder() / (front_end + ".log") : fs::path(named);
  if (level == LogLevel::kOff || (named.empty() && cache_folder().empty())) return;
  std::error_code failed;
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), failed);
  if (fs::exists(path, failed)) fs::rename(path, path.string() + ".1", failed);
  file_.open(path, std::ios::trunc);
  if (file_)
    path_ = path;
  else if (!named.empty())
    fail(ErrorCode::kIo, "{}: cannot write the log (PMETAL_LOG_FILE)", named);
}

void LogFileSink::emit(const jobs::JobEvent& event) {
  if (path_.empty()) return;
  const LogLine line = std::visit(LineOf{}, event.body);
  if (line.text.empty() || line.level < level_) return;
  file_ << fmt::format("{:%Y-%m-%dT%H:%M:%SZ} {} {} {}\n", fmt::gmtime(static_cast<std::time_t>(event.ts)),
                       jobs::name_of(line.level), event.job_id, line.text)
        << std::flush;
}

}  // namespace pmetal::app
