// Metrics of a training run as JSON lines (--log-metrics): steps, evaluations and run events, one object per line.
//   {"event":"train_start","run_name":..,"config":{..},"timestamp":..}
//   {"step":..,"epoch":..,"loss":..,..,"split":"train","timestamp":..}           no "event" key in step lines
//   {"event":"epoch_end"|"checkpoint_saved"|"train_end"|..}
// Timestamps are RFC 3339 in UTC. A number that is not finite is null and named in "nonfinite".
//
// A thread of its own writes; the training step only appends to a queue in memory. Nothing is lost: a writer that
// cannot keep up with kMaxQueuedBytes of lines makes the step wait. The file is appended to, so a resumed run goes on
// in it. A failed write is thrown as Error(kIo) by the next call, and by close().
#pragma once

#include <condition_variable>
#include <cstdint>
#include <ctime>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "jobs/events.h"

namespace pmetal::jobs {

class MetricsWriter {
 public:
  // `clock` gives unix time in seconds with fraction; tests pass their own
  explicit MetricsWriter(std::string path, std::function<double()> clock = {});
  ~MetricsWriter();  // writes what is queued; call close() first to learn of errors
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;

  void train_start(std::string_view run_name, std::string_view config_json);
  void step(const StepMetric& metric);
  void evaluation(const EvalMetricEvent& metric);  // a step line with "split":"eval"
  void epoch_end(int64_t epoch, double loss, double perplexity);
  void checkpoint_saved(std::string_view path);
  // other events of a method: lr_action, skip, ...
  void event(std::string_view name, const ExtraNumbers& numbers, std::string_view detail = {});
  void train_end(int64_t steps, int64_t tokens, double loss);

  void close();  // waits until everything is in the file

  static constexpr size_t kMaxQueuedBytes = size_t{64} << 20;  // about 200 000 step lines

 private:
  void append(std::string line);
  void write_loop();

  std::string path_;
  std::function<double()> clock_;
  int fd_ = -1;
  std::mutex mutex_;
  std::condition_variable has_lines_, has_room_;
  std::string queue_;
  bool is_closing_ = false;
  std::exception_ptr failure_;
  std::thread writer_;
};

std::string rfc3339(double unix_seconds);  // 2026-01-02T03:04:05.678Z

}  // namespace pmetal::jobs
