// What the training commands share: the loop's observer that turns reports into events and metrics, and what a run
// says of itself at its end.
#pragma once

#include <string>

#include "jobs/context.h"
#include "jobs/metrics.h"
#include "train/targets.h"
#include "train/trainer.h"

namespace pmetal::jobs {

// Reports as JobEvents and metrics lines; stops when the job is cancelled.
class TrainingObserver final : public train::TrainObserver {
 public:
  TrainingObserver(const JobContext& job, MetricsWriter* metrics, int64_t total_epochs)
      : job_(job), metrics_(metrics), total_epochs_(total_epochs) {}
  void on_step(const train::StepReport& report) override;
  void on_eval(const train::EvalReport& report) override;
  void on_checkpoint(const std::filesystem::path& folder) override;
  void on_best(const std::filesystem::path& folder) override;
  void on_log(const std::string& line) override;
  void on_lr_action(int64_t step, const char* action, double lr, const std::string& text) override;
  void on_warning(const std::string& line) override;
  bool stop_requested() override { return job_.is_cancelled(); }

 private:
  const JobContext& job_;
  MetricsWriter* metrics_;  // may be null
  int64_t total_epochs_, epoch_seen_ = 0;
  double epoch_loss_ = 0;
  int64_t epoch_steps_ = 0;
};

// The job's summary and the last line of its metrics (may be null); `output` is what a user loads.
void finish_training(JobContext& job, MetricsWriter* metrics, const train::TrainSummary& summary, std::string output);

}  // namespace pmetal::jobs
