#include "jobs/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>

#include <fmt/chrono.h>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace pmetal::jobs {
namespace {

using Json = nlohmann::ordered_json;

// numbers that are not finite become null and are named
class Line {
 public:
  void number(const std::string& name, double value) {
    if (std::isfinite(value)) {
      json_[name] = value;
    } else {
      json_[name] = nullptr;
      nonfinite_.push_back(name);
    }
  }
  void number(const std::string& name, const std::optional<double>& value) {
    if (value) number(name, *value);
  }
  void numbers(const ExtraNumbers& values) {
    for (const auto& [name, value] : values) number(name, value);
  }
  Json& operator[](const char* name) { return json_[name]; }
  std::string finish(double time) {
    json_["timestamp"] = rfc3339(time);
    if (!nonfinite_.empty()) json_["nonfinite"] = nonfinite_;
    return json_.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }

 private:
  Json json_ = Json::object();
  std::vector<std::string> nonfinite_;
};

double system_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

std::string rfc3339(double unix_seconds) {
  const double whole = std::floor(unix_seconds);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(static_cast<std::time_t>(whole)),
                     static_cast<int>((unix_seconds - whole) * 1000));
}

MetricsWriter::MetricsWriter(std::string path, std::function<double()> clock)
    : path_(std::move(path)), clock_(clock ? std::move(clock) : system_time) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) fail(ErrorCode::kIo, "{}: cannot open the metrics file: {}", path_, std::strerror(errno));
  writer_ = std::thread([this] { write_loop(); });
}

MetricsWriter::~MetricsWriter() {
  {
    const std::lock_guard lock(mutex_);
    is_closing_ = true;
  }
  has_lines_.notify_all();
  if (writer_.joinable()) writer_.join();
  if (fd_ >= 0) ::close(fd_);
}

void MetricsWriter::close() {
  {
    const std::lock_guard lock(mutex_);
    is_closing_ = true;
  }
  has_lines_.notify_all();
  if (writer_.joinable()) writer_.join();
  if (fd_ >= 0 && ::close(std::exchange(fd_, -1)) != 0 && !failure_)
    fail(ErrorCode::kIo, "{}: cannot write: {}", path_, std::strerror(errno));
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void MetricsWriter::append(std::string line) {
  std::unique_lock lock(mutex_);
  PMETAL_ASSERT(!is_closing_, "{} is closed", path_);
  has_room_.wait(lock, [&] { return failure_ || queue_.size() < kMaxQueuedBytes; });
  if (failure_) std::rethrow_exception(failure_);
  queue_ += line;
  lock.unlock();
  has_lines_.notify_one();
}

void MetricsWriter::write_loop() {
  std::string lines;
  for (;;) {
    std::unique_lock lock(mutex_);
    has_lines_.wait(lock, [&] { return is_closing_ || !queue_.empty(); });
    if (queue_.empty() || failure_) return;
    lines.clear();
    lines.swap(queue_);
    lock.unlock();
    has_room_.notify_all();
    for (size_t done = 0; done < lines.size();) {
      const ssize_t n = ::write(fd_, lines.data() + done, lines.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        const std::string text = fmt::format("{}: cannot write metrics: {}", path_, std::strerror(errno));
        lock.lock();
        failure_ = std::make_exception_ptr(Error(ErrorCode::kIo, text));
        has_room_.notify_all();
        return;
      }
      done += static_cast<size_t>(n);
    }
  }
}

void MetricsWriter::train_start(std::string_view run_name, std::string_view config_json) {
  Line line;
  line["event"] = "train_start";
  line["run_name"] = run_name;
  line["config"] = Json::parse(config_json);
  append(line.finish(clock_()));
}

void MetricsWriter::step(const StepMetric& m) {
  Line line;
  line["step"] = m.step;
  line.number("epoch", m.epoch);
  line["total_epochs"] = m.total_epochs;
  line["total_steps"] = m.total_steps;
  line["split"] = "train";
  line.number("loss", m.loss);
  line.number("lr", m.lr);
  line.number("grad_norm", m.grad_norm);
  line["tokens"] = m.tokens;
  line.number("tok_sec", m.tok_sec);
  line.number("total_ms", m.total_ms);
  line.number("gpu_fwd_bwd_ms", m.fwd_bwd_ms);
  line.number("optimizer_ms", m.optimizer_ms);
  line.number("io_staging_ms", m.io_staging_ms);
  line.number("overhead_ms", m.overhead_ms);
  line.number("mem_gb", m.mem_gb);
  line.number("mfu", m.mfu);
  line.number("entropy", m.entropy);
  line.number("token_accuracy", m.token_accuracy);
  line.numbers(m.extra);
  append(line.finish(clock_()));
}

void MetricsWriter::evaluation(const EvalMetricEvent& m) {
  Line line;
  line["step"] = m.step;
  line["split"] = "eval";
  line.number("loss", m.loss);
  line.number("perplexity", m.perplexity);
  line.number("accuracy", m.accuracy);
  line.numbers(m.custom);
  append(line.finish(clock_()));
}

void MetricsWriter::epoch_end(int64_t epoch, double loss, double perplexity) {
  Line line;
  line["event"] = "epoch_end";
  line["epoch"] = epoch;
  line.number("loss", loss);
  line.number("perplexity", perplexity);
  append(line.finish(clock_()));
}

void MetricsWriter::checkpoint_saved(std::string_view path) {
  Line line;
  line["event"] = "checkpoint_saved";
  line["path"] = path;
  append(line.finish(clock_()));
}

void MetricsWriter::event(std::string_view name, const ExtraNumbers& numbers, std::string_view detail) {
  Line line;
  line["event"] = name;
  line.numbers(numbers);
  if (!detail.empty()) line["detail"] = detail;
  append(line.finish(clock_()));
}

void MetricsWriter::train_end(int64_t steps, int64_t tokens, double loss) {
  Line line;
  line["event"] = "train_end";
  line["steps"] = steps;
  line["tokens"] = tokens;
  line.number("loss", loss);
  append(line.finish(clock_()));
}

}  // namespace pmetal::jobs
