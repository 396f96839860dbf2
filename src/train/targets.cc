#include "train/targets.h"

namespace pmetal::train {
namespace {

// LoRA+ gives the table's low-rank update a rate of its own (Hayou et al. 2024; PEFT's loraplus_lr_embedding)
constexpr double kLoraPlusEmbedding = 1e-6;

class AdapterTarget final : public TrainTarget {
 public:
  AdapterTarget(models::Model& model, std::shared_ptr<adapters::Adapter> adapter, const LearningRates& rates)
      : model_(model), adapter_(std::move(adapter)), rates_(rates) {}
  models::Model& model() override { return model_; }
  std::vector<Trainable> trainables() override {
    std::vector<Trainable> all;
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

class ModelTarget final : public TrainTarget {
 public:
  ModelTarget(models::Model& model, const models::Checkpoint& checkpoint, fs::path source, DType dtype,
              const LearningRates& rates)
      : model_(model), checkpoint_(checkpoint), source_(std::move(source)), dtype_(dtype), rates_(rates) {}
  models::Model& model() override { return model_; }
  std::vector<Trainable> trainables() override {
    return all_parameters(model_, rates_.embedding ? *rates_.embedding / rates_.learning_rate : 1);
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

std::vector<Trainable> all_parameters(models::Model& model, double embedding_scale) {
  struct Collect final : models::ParameterVisitor {
    std::vector<Trainable> all;
    double embedding;
    explicit Collect(double scale) : embedding(scale) {}
    void on(nn::Linear& l) override {
      all.push_back({l.name() + ".weight", &l.trainable, l.name() == "lm_head" ? embedding : 1});
      if (l.bias.defined()) all.push_back({l.name() + ".bias", &l.bias, 1, false});
    }
    void on(nn::Embedding& e) override { all.push_back({e.name() + ".weight", &e.trainable, embedding}); }
    void on(nn::Parameter& p) override { all.push_back({p.name, &p.value, 1, false}); }
  } collect(embedding_scale);
  model.visit(collect);
  return std::move(collect.all);
}

std::unique_ptr<TrainTarget> make_adapter_target(models::Model& model, std::shared_ptr<adapters::Adapter> adapter,
                                                 const LearningRates& rates) {
  return std::make_unique<AdapterTarget>(model, std::move(adapter), rates);
}

std::unique_ptr<TrainTarget> make_model_target(models::Model& model, const models::Checkpoint& checkpoint,
                                               fs::path source, DType saved_dtype, const LearningRates& rates) {
  return std::make_unique<ModelTarget>(model, checkpoint, std::move(source), saved_dtype, rates);
}

}  // namespace pmetal::train
