#include "app/log.h"

#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>

#include "base/error.h"
#include "jobs/log_line.h"

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
  const jobs::LogLine line = jobs::log_line(event);
  if (line.text.empty() || line.level < level_) return;
  file_ << fmt::format("{} {} {} {}\n", jobs::log_time(event.ts), jobs::name_of(line.level), event.job_id, line.text)
        << std::flush;
}

}  // namespace pmetal::app
