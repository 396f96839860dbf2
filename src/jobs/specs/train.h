// Options of `pmetal train`: supervised fine-tuning with adapters or of all parameters.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

enum class LrSchedule : uint8_t { kCosine, kLinear, kConstant, kCosineWithRestarts, kPolynomial, kWsd };
enum class Optimizer : uint8_t { kAdamW };
enum class LoraBias : uint8_t { kNone, kAll, kLoraOnly };
enum class LoraInit : uint8_t { kDefault, kGaussian };
enum class Streaming : uint8_t { kAuto, kOn, kOff };
enum class Recompute : uint8_t { kAuto, kNone, kBlocks };

struct TrainOptions {
  // Model
  std::string model;
  ComputeDtype dtype = ComputeDtype::kBF16;
  // Data
  std::string dataset;
  std::string split = "train";
  std::optional<std::string> eval_dataset;
  int64_t max_seq_len = 0;
  bool no_sequence_packing = false;
  std::optional<int64_t> pack_max_seq_len;
  TrainOn train_on = TrainOn::kAll;
  std::optional<std::string> text_column;
  std::vector<std::string> text_columns;
  std::string column_separator = "\n\n";
  std::optional<std::string> prompt_column;
  std::optional<std::string> response_column;
  std::optional<int64_t> max_samples;
  bool no_shuffle = false;
  NamedValues<double> mix;
  double dataset_weight = 1.0;
  Streaming streaming = Streaming::kAuto;
  int64_t shuffle_buffer = 8192;
  // Training
  bool full = false;
  int64_t epochs = 1;
  std::optional<int64_t> max_steps;
  int64_t batch_size = 1;
  int64_t gradient_accumulation_steps = 4;
  uint64_t seed = 42;
  bool resume = false;
  int64_t logging_steps = 10;
  int64_t eval_steps = 100;
  // Optimization
  Optimizer optimizer = Optimizer::kAdamW;
  double learning_rate = 2e-4;
  std::optional<double> embedding_lr;
  LrSchedule lr_schedule = LrSchedule::kCosine;
  std::optional<double> min_lr;
  int64_t warmup_steps = 0;
  std::optional<double> warmup_ratio;
  double wsd_stable_ratio = 0.7;
  int64_t cosine_num_restarts = 1;
  double polynomial_power = 1.0;
  double weight_decay = 0.01;
  double max_grad_norm = 1.0;
  double neftune_alpha = 0.0;
  bool adaptive_lr = false;
  // LoRA
  int64_t lora_r = 16;
  double lora_alpha = 32;
  double lora_dropout = 0;
  std::vector<std::string> target_modules = {"q_proj", "k_proj", "v_proj", "o_proj"};
  std::vector<std::string> exclude_modules;
  bool rslora = false;
  bool dora = false;
  std::optional<double> loraplus_lr_ratio;
  LoraBias lora_bias = LoraBias::kNone;
  LoraInit init_lora_weights = LoraInit::kDefault;
  std::vector<std::string> modules_to_save;
  std::vector<int64_t> layers_to_transform;
  NamedValues<int64_t> rank_pattern;
  NamedValues<double> alpha_pattern;
  // Compute
  DeviceChoice device = DeviceChoice::kAuto;
  int64_t threads = 0;
  Recompute recompute = Recompute::kAuto;
  int64_t gradient_checkpointing_layers = 4;
  bool no_gradient_checkpointing = false;
  // Output
  std::string output_dir = "./output";
  int64_t save_steps = 500;
  int64_t keep_checkpoints = 3;
  std::optional<std::string> log_metrics;
};

}  // namespace pmetal::jobs
