// Options of `pmetal eval`: perplexity of a text, or exact match of generated answers.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

enum class EvalMetric : uint8_t { kPerplexity, kExactMatch };

// what of the two answers is compared
enum class AnswerPart : uint8_t { kStripped, kExact, kLastNumber };

struct EvalOptions {
  std::string model;
  std::optional<std::string> lora;
  ComputeDtype dtype = ComputeDtype::kBF16;
  std::string dataset;
  std::string document_separator = "<|endoftext|>";
  std::optional<std::string> text_column;
  std::vector<std::string> text_columns;
  std::string column_separator = "\n\n";
  std::optional<std::string> prompt_column;
  std::optional<std::string> response_column;
  EvalMetric metric = EvalMetric::kPerplexity;
  int64_t max_seq_len = 1024;
  std::optional<int64_t> stride;
  bool completion_only = false;
  int64_t num_samples = 0;
  AnswerPart compare = AnswerPart::kStripped;
  int64_t max_tokens = 128;
  int64_t batch_size = 8;
  DeviceChoice device = DeviceChoice::kAuto;
  int64_t threads = 0;
};

}  // namespace pmetal::jobs
