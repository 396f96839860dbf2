// Options of `pmetal pretrain`: train all parameters from random weights on token shards.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

enum class PretrainSchedule : uint8_t { kConstant, kLinear, kCosine };

struct PretrainOptions {
  // Model
  std::string arch = "qwen3";
  std::optional<std::string> model_config;
  std::optional<std::string> tokenizer;
  ComputeDtype dtype = ComputeDtype::kBF16;
  // Data
  std::vector<std::string> shards;
  std::vector<std::string> eval_shards;
  int64_t seq_len = 2048;
  int64_t eos_token_id = 0;
  bool cross_document_attention = false;
  // Training
  int64_t batch_size = 4;
  int64_t gradient_accumulation_steps = 1;
  int64_t steps = 10000;
  uint64_t seed = 42;
  std::optional<std::string> resume;
  // Optimization
  double learning_rate = 3e-4;
  double min_lr = 1e-5;
  int64_t warmup_steps = 1000;
  PretrainSchedule lr_schedule = PretrainSchedule::kCosine;
  double weight_decay = 0.1;
  double max_grad_norm = 1.0;
  double z_loss = 0;
  // Compute
  DeviceChoice device = DeviceChoice::kAuto;
  int64_t threads = 0;
  // Output
  std::string output_dir = "./pretrain-output";
  int64_t checkpoint_every = 1000;
  int64_t keep_checkpoints = 3;
  int64_t log_every = 10;
  int64_t eval_every = 0;
  int64_t eval_batches = 10;
  std::optional<std::string> log_metrics;
};

}  // namespace pmetal::jobs
