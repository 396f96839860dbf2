#include "jobs/log_line.h"

#include <ctime>

#include <fmt/chrono.h>

namespace pmetal::jobs {
namespace {

// what of an event belongs in a log; an empty text means nothing
struct LineOf {
  LogLine operator()(const StartedEvent& e) const { return {LogLevel::kInfo, "started " + e.kind}; }
  LogLine operator()(const PhaseEvent& e) const {
    return {LogLevel::kInfo, e.phase + (e.detail.empty() ? "" : ": " + e.detail)};
  }
  LogLine operator()(const LogEvent& e) const { return {e.level, e.line}; }
  LogLine operator()(const StepMetric& e) const {
    return {LogLevel::kDebug,
            fmt::format("step {} of {}: loss {:.5g}, lr {:.4g}", e.step, e.total_steps, e.loss, e.lr)};
  }
  LogLine operator()(const EvalMetricEvent& e) const {
    return {LogLevel::kInfo,
            fmt::format("evaluation at step {}: loss {:.5g}, perplexity {:.5g}", e.step, e.loss, e.perplexity)};
  }
  LogLine operator()(const ArtefactEvent& e) const {
    return {LogLevel::kInfo, "wrote " + e.path + " (" + e.role + ")"};
  }
  LogLine operator()(const CompletedEvent&) const { return {LogLevel::kInfo, "completed"}; }
  LogLine operator()(const FailedEvent& e) const { return {LogLevel::kError, "failed: " + e.error}; }
  LogLine operator()(const CancelledEvent&) const { return {LogLevel::kWarn, "cancelled"}; }
  template <class Other>
  LogLine operator()(const Other&) const {
    return {LogLevel::kTrace, {}};
  }
};

}  // namespace

LogLine log_line(const JobEvent& event) { return std::visit(LineOf{}, event.body); }

std::string log_time(int64_t unix_seconds) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<std::time_t>(unix_seconds)));
}

}  // namespace pmetal::jobs
