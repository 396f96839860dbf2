#include "jobs/training.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "jobs/machine.h"

namespace pmetal::jobs {
namespace {

// LoRA+ gives the table's low-rank update a rate of its own (Hayou et al. 2024; PEFT's loraplus_lr_embedding)
constexpr double kLoraPlusEmbedding = 1e-6;

class AdapterTarget final : public train::TrainTarget {
 public:
  AdapterTarget(models::Model& model, std::shared_ptr<adapters::Adapter> adapter, const LearningRates& rates)
      : model_(model), adapter_(std::move(adapter)), rates_(rates) {}
  models::Model& model() override { return model_; }
  std::vector<train::Trainable> trainables() override {
    std::vector<train::Trainable> all;
    for (const adapters::AdapterParameter& p : adapter_->parameters()) {
      const bool of_table = p.key.ends_with("lm_head.weight") || p.key.ends_with("embed_tokens.weight") ||
                            p.key.find(".lora_embedding_") != p.key.npos;
      std::optional<double> embedding = rates_.embedding;
      if (!embedding && rates_.loraplus_ratio && p.key.find(".lora_embedding_") != p.key.npos)
        embedding = kLoraPlusEmbedding;
      const double scale = of_table && embedding             ? *embedding / rates_.learning_rate
                           : p.is_b && rates_.loraplus_ratio ? *rates_.loraplus_ratio
                                                             : 1;
      all.push_back({p.key, p.value, scale, p.value->rank() > 1});
    }
    return all;
  }
  void values_changed() override { adapter_->refresh(); }
  void save(const fs::path& folder, const std::function<Tensor(const std::string&)>& master_of) override {
    adapter_->save(folder, [&](const adapters::AdapterParameter& p) { return master_of(p.key); });
  }
  bool draws_random() const override { return adapter_->config().dropout > 0; }
  // DoRA keeps norms of the merged weights
  bool is_recordable() const override { return !adapter_->config().use_dora; }

 private:
  models::Model& model_;
  std::shared_ptr<adapters::Adapter> adapter_;
  LearningRates rates_;
};

class ModelTarget final : public train::TrainTarget {
 public:
  ModelTarget(models::Model& model, const models::Checkpoint& checkpoint, fs::path source, DType dtype,
              const LearningRates& rates)
      : model_(model), checkpoint_(checkpoint), source_(std::move(source)), dtype_(dtype), rates_(rates) {}
  models::Model& model() override { return model_; }
  std::vector<train::Trainable> trainables() override {
    struct Collect final : models::ParameterVisitor {
      std::vector<train::Trainable> all;
      double embedding = 1;
      void on(nn::Linear& l) override {
        all.push_back({l.name() + ".weight", &l.trainable, l.name() == "lm_head" ? embedding : 1});
        if (l.bias.defined()) all.push_back({l.name() + ".bias", &l.bias, 1, false});
      }
      void on(nn::Embedding& e) override { all.push_back({e.name() + ".weight", &e.trainable, embedding}); }
      void on(nn::Parameter& p) override { all.push_back({p.name, &p.value, 1, false}); }
    } collect;
    if (rates_.embedding) collect.embedding = *rates_.embedding / rates_.learning_rate;
    model_.visit(collect);
    return collect.all;
  }
  // the compute copies are the masters rounded once: they are what is saved
  void save(const fs::path& folder, const std::function<Tensor(const std::string&)>&) override {
    models::save_model(model_, checkpoint_.config(), folder, dtype_);
    models::copy_sidecars(source_, folder);
  }
  bool is_recordable() const override { return true; }

 private:
  models::Model& model_;
  const models::Checkpoint& checkpoint_;
  fs::path source_;
  DType dtype_;
  LearningRates rates_;
};

}  // namespace

std::unique_ptr<train::TrainTarget> make_adapter_target(models::Model& model,
                                                        std::shared_ptr<adapters::Adapter> adapter,
                                                        const LearningRates& rates) {
  return std::make_unique<AdapterTarget>(model, std::move(adapter), rates);
}

std::unique_ptr<train::TrainTarget> make_model_target(models::Model& model, const models::Checkpoint& checkpoint,
                                                      fs::path source, DType saved_dtype, const LearningRates& rates) {
  return std::make_unique<ModelTarget>(model, checkpoint, std::move(source), saved_dtype, rates);
}

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

}  // namespace pmetal::jobs
