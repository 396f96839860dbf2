// What the training commands share: the things that can be trained, the loop's observer that turns reports into events
// and metrics, and saving of what a user loads.
#pragma once

#include <memory>
#include <string>

#include "adapters/adapter.h"
#include "jobs/context.h"
#include "jobs/metrics.h"
#include "models/checkpoint.h"
#include "train/trainer.h"

namespace pmetal::jobs {

struct LearningRates {
  double learning_rate = 2e-4;
  std::optional<double> embedding;       // embeddings and heads that train; with LoRA+ else 1e-6 for adapters of tables
  std::optional<double> loraplus_ratio;  // B and 1-D adapter tensors: this multiple of the rate
};

// an adapter on a frozen model
std::unique_ptr<train::TrainTarget> make_adapter_target(models::Model& model,
                                                        std::shared_ptr<adapters::Adapter> adapter,
                                                        const LearningRates& rates);
// all parameters; saved as a model folder with the config and the sidecars of `source_folder` (may be empty)
std::unique_ptr<train::TrainTarget> make_model_target(models::Model& model, const models::Checkpoint& checkpoint,
                                                      std::filesystem::path source_folder, DType saved_dtype,
                                                      const LearningRates& rates);

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

}  // namespace pmetal::jobs
