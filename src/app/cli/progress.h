// Shows a job's events to a person: a live line on a terminal, plain lines at intervals elsewhere, and a loss chart at
// the end of training. Text for people goes to `people` (stderr), generated text to `data` (stdout).
#pragma once

#include <chrono>
#include <functional>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "app/cli/chart.h"
#include "jobs/events.h"

namespace pmetal::app {

struct Terminal {
  bool is_tty = false;       // `people` is a terminal
  bool has_color = false;    // and NO_COLOR is unset
  bool shows_tokens = true;  // false under --json: stdout has one document only
  jobs::LogLevel level = jobs::LogLevel::kInfo;
  std::function<int()> width;  // columns, asked anew for each line
  std::function<std::chrono::steady_clock::time_point()> now;
};
Terminal stderr_terminal(jobs::LogLevel level, bool json);

class ProgressRenderer : public jobs::EventSink {
 public:
  ProgressRenderer(Terminal terminal, std::ostream& people, std::ostream& data);
  void emit(const jobs::JobEvent& event) override;

 private:
  using Time = std::chrono::steady_clock::time_point;

  void show(const jobs::StartedEvent&) {}
  void show(const jobs::PhaseEvent& event);
  void show(const jobs::StepMetric& event);
  void show(const jobs::EvalMetricEvent& event);
  void show(const jobs::BenchTrial& event);
  void show(const jobs::InferenceDone& event);
  void show(const jobs::TokenEvent& event);
  void show(const jobs::LogEvent& event);
  void show(const jobs::ProgressEvent& event);
  void show(const jobs::CompletedEvent& event);
  void show(const jobs::FailedEvent&) { clear_live_line(); }
  void show(const jobs::CancelledEvent&) { clear_live_line(); }
  void show(const jobs::ArtefactEvent& event);

  void print_line(const std::string& line);
  void live_line(const std::string& line, bool is_last);  // a plain line now and then where there is no terminal
  void clear_live_line();
  void end_token_text();
  std::string step_line(const jobs::StepMetric& event);

  Terminal terminal_;
  std::ostream &people_, &data_;
  bool has_live_line_ = false, in_token_text_ = false;
  std::optional<Time> last_plain_line_;
  std::optional<std::pair<Time, int64_t>> first_step_;
  int64_t steps_before_ = 0;  // of earlier trainings of the same job: the chart goes on where they ended
  std::vector<ChartPoint> losses_;
};

}  // namespace pmetal::app
