// Options of `pmetal infer`: answer one prompt, or chat.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

enum class SamplingMode : uint8_t { kAuto, kThinkingGeneral, kThinkingCoding, kInstructGeneral, kInstructReasoning };

struct InferOptions {
  // Model
  std::string model;
  std::optional<std::string> lora;
  ComputeDtype dtype = ComputeDtype::kBF16;
  // Prompt
  std::string prompt;
  std::optional<std::string> prompt_file;
  bool interactive = false;
  bool chat = false;
  std::optional<std::string> system;
  std::optional<std::string> tools;
  bool no_thinking = false;
  bool hide_thinking = false;
  // Sampling: absent values come from --mode, then the model's generation_config.json, then built-in values
  SamplingMode mode = SamplingMode::kAuto;
  int64_t max_tokens = 256;
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<double> frequency_penalty;
  std::optional<double> presence_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool detect_repetition = false;
  // Compute
  DeviceChoice device = DeviceChoice::kAuto;
  int64_t threads = 0;
  bool batch_invariant = false;
  // Benchmark
  bool benchmark = false;
  int64_t benchmark_iters = 5;
  std::optional<int64_t> benchmark_prompt_tokens;
  bool profile_layers = false;
  std::optional<std::string> profile_output;
};

}  // namespace pmetal::jobs
