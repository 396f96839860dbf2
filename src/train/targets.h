// What the loop can train: an adapter on a frozen model, or all parameters of a model.
#pragma once

#include <memory>

#include "adapters/adapter.h"
#include "models/checkpoint.h"
#include "train/trainer.h"

namespace pmetal::train {

struct LearningRates {
  double learning_rate = 2e-4;
  std::optional<double> embedding;       // embeddings and heads that train; with LoRA+ else 1e-6 for adapters of tables
  std::optional<double> loraplus_ratio;  // B and 1-D adapter tensors: this multiple of the rate
};

// weights, biases, norms, the token table; `embedding_scale` is the lr_scale of the table and of an untied head
std::vector<Trainable> all_parameters(models::Model& model, double embedding_scale = 1);

// an adapter on a frozen model
std::unique_ptr<TrainTarget> make_adapter_target(models::Model& model, std::shared_ptr<adapters::Adapter> adapter,
                                                 const LearningRates& rates = {});
// all parameters; saved as a model folder with the config and the sidecars of `source_folder` (may be empty)
std::unique_ptr<TrainTarget> make_model_target(models::Model& model, const models::Checkpoint& checkpoint,
                                               std::filesystem::path source_folder, DType saved_dtype,
                                               const LearningRates& rates = {});

}  // namespace pmetal::train
