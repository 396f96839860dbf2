#include "jobs/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/error.h"
#include "base/failure.h"
#include "base/file.h"
#include "jobs/log_line.h"

namespace pmetal::jobs {
namespace {

class RunningMark {
 public:
  explicit RunningMark(const fs::path& output) : file_(output / ".running") {
    fd_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0)
      fail(ErrorCode::kIo, "{}: cannot create: {}; choose a folder you may write to", file_.string(),
           std::strerror(errno));
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      ::close(fd_);
      fail(ErrorCode::kUsage, "{}: process {} is training into this folder; wait for it, or choose another --output",
           output.string(), read_number());
    }
    const std::string number = fmt::format("{}\n", ::getpid());
    if (::ftruncate(fd_, 0) != 0 || ::write(fd_, number.data(), number.size()) < 0) {
      const int reason = errno;
      ::close(fd_);
      fail(ErrorCode::kIo, "{}: cannot write: {}", file_.string(), std::strerror(reason));
    }
  }
  ~RunningMark() {
    ::unlink(file_.c_str());
    ::close(fd_);
  }
  RunningMark(const RunningMark&) = delete;
  RunningMark& operator=(const RunningMark&) = delete;

 private:
  std::string read_number() const {
    std::string text = read_text(file_);
    text.resize(text.find_last_not_of('\n') + 1);
    return text;
  }
  fs::path file_;
  int fd_ = -1;
};

// Passes every event on and writes the log.
class TrainingLog final : public EventSink {
 public:
  TrainingLog(const fs::path& file, int64_t every, EventSink& next)
      : file_(file), every_(every), next_(next), out_(file, std::ios::app) {
    if (!out_) fail(ErrorCode::kIo, "{}: cannot write the log; choose another --output", file.string());
  }
  void emit(const JobEvent& event) override {
    next_.emit(event);
    LogLine line = log_line(event);
    if (const auto* step = std::get_if<StepMetric>(&event.body)) {
      if (step->step != 1 && step->step % every_ && step->step != step->total_steps) return;
      line.level = LogLevel::kInfo;
      line.text += fmt::format(", {:.0f} tokens/s", step->tok_sec);
      if (step->grad_norm) line.text += fmt::format(", gradient norm {:.4g}", *step->grad_norm);
    } else if (line.text.empty() || line.level < LogLevel::kInfo) {
      return;
    }
    write(event.ts, line.level, line.text);
  }
  void write(int64_t ts, LogLevel level, const std::string& text) {
    out_ << fmt::format("{} {} {}\n", log_time(ts), name_of(level), text) << std::flush;
    if (!out_) fail(ErrorCode::kIo, "{}: cannot write; free space or choose another --output", file_.string());
  }

 private:
  fs::path file_;
  int64_t every_;
  EventSink& next_;
  std::ofstream out_;
};

}  // namespace

void in_run_folder(const fs::path& output, int64_t logging_steps, JobContext& job,
                   const std::function<void(JobContext&)>& body) {
  std::error_code error;
  fs::create_directories(output, error);
  if (error)
    fail(ErrorCode::kIo, "{}: cannot create the folder: {}; choose another --output", output.string(), error.message());
  const RunningMark running(output);
  fs::remove(output / "error.log", error);
  TrainingLog log(output / "training.log", logging_steps, job.events());
  log.write(JobContext::unix_seconds(), LogLevel::kInfo, "started");
  JobContext logged = job.with_events(&log);
  try {
    body(logged);
  } catch (const std::exception& failure) {
    const auto* known = dynamic_cast<const Error*>(&failure);
    const bool stopped = known && known->code() == ErrorCode::kCancelled;
    const std::string line = fmt::format("{} {}\n", log_time(JobContext::unix_seconds()),
                                         stopped ? "stopped on request" : failure_text(failure));
    // a full disk may have been the reason: the error itself is told all the same
    std::ofstream(output / "training.log", std::ios::app) << line;
    if (!stopped) std::ofstream(output / "error.log") << line;
    throw;
  }
  log.write(JobContext::unix_seconds(), LogLevel::kInfo, "completed");
  job.summary = logged.summary;
}

void set_checkpoints_aside(const fs::path& output, const JobContext& job) {
  const fs::path checkpoints = output / "checkpoints", before = output / "checkpoints.before";
  if (!fs::exists(checkpoints)) return;
  fs::remove_all(before);
  fs::rename(checkpoints, before);
  job.log(LogLevel::kWarn, "{} holds the checkpoints of an earlier run; they are in {} now", output.string(),
          before.string());
}

}  // namespace pmetal::jobs
