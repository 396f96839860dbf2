#include "jobs/training.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "jobs/machine.h"

namespace pmetal::jobs {

void TrainingObserver::on_step(const train::StepReport& r) {
  StepMetric m;
  m.step = r.step;
  m.total_steps = r.total_steps;
  m.epoch = r.epoch;
  m.total_epochs = total_epochs_;
  m.loss = r.loss;
  m.lr = r.lr;
  m.tok_sec = r.seconds > 0 ? static_cast<double>(r.step_tokens) / r.seconds : 0;
  m.total_ms = 1e3 * r.seconds;
  m.tokens = r.tokens;
  m.grad_norm = r.grad_norm;
  m.fwd_bwd_ms = r.forward_backward_ms;
  m.optimizer_ms = r.optimizer_ms;
  m.io_staging_ms = r.data_ms;
  m.overhead_ms = std::max(0.0, m.total_ms - r.forward_backward_ms - r.optimizer_ms - r.data_ms);
  m.mem_gb = static_cast<double>(read_memory_info().process) / 1e9;
  m.entropy = r.entropy;
  m.token_accuracy = r.token_accuracy;
  job_.emit(m);
  if (metrics_) {
    metrics_->step(m);
    if (r.skipped) metrics_->event("skip", {{"step", static_cast<double>(r.step)}, {"grad_norm", r.grad_norm}});
  }
  if (r.skipped)
    job_.log(LogLevel::kWarn, "step {}: the loss or its gradient is not finite; no update was made", r.step);
  epoch_loss_ += r.loss;
  ++epoch_steps_;
  if (const auto epoch = static_cast<int64_t>(r.epoch); epoch > epoch_seen_) {
    epoch_seen_ = epoch;
    const double mean = epoch_loss_ / static_cast<double>(epoch_steps_);
    if (metrics_) metrics_->epoch_end(epoch, mean, std::exp(mean));
    epoch_loss_ = 0;
    epoch_steps_ = 0;
  }
}

void TrainingObserver::on_eval(const train::EvalReport& r) {
  EvalMetricEvent e;
  e.step = r.step;
  e.loss = r.loss;
  e.perplexity = r.perplexity;
  e.accuracy = r.token_accuracy;
  job_.emit(e);
  if (metrics_) metrics_->evaluation(e);
}

void TrainingObserver::on_checkpoint(const fs::path& folder) {
  job_.artefact(folder.string(), "checkpoint");
  if (metrics_) metrics_->checkpoint_saved(folder.string());
}

void TrainingObserver::on_best(const fs::path& folder) { job_.artefact(folder.string(), "best"); }

void TrainingObserver::on_log(const std::string& line) { job_.log(LogLevel::kInfo, "{}", line); }

void TrainingObserver::on_lr_action(int64_t step, const char* action, double lr, const std::string& text) {
  job_.log(LogLevel::kWarn, "step {}: {}: {}", step, action, text);
  if (metrics_) metrics_->event("lr_action", {{"step", static_cast<double>(step)}, {"lr", lr}}, action);
}

void TrainingObserver::on_warning(const std::string& line) { job_.log(LogLevel::kWarn, "{}", line); }

void finish_training(JobContext& job, MetricsWriter* metrics, const train::TrainSummary& summary, std::string output) {
  if (metrics) {
    metrics->train_end(summary.steps, summary.tokens, summary.final_loss);
    metrics->close();
  }
  job.summary.final_loss = summary.final_loss;
  job.summary.total_steps = summary.steps;
  job.summary.total_tokens = summary.tokens;
  job.summary.output_path = std::move(output);
}

}  // namespace pmetal::jobs
