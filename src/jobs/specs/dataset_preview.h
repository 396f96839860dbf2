// Options of `pmetal dataset preview`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct DatasetPreviewOptions {
  std::string path;
  std::string split = "train";
  int64_t n = 5;
  std::optional<std::string> model;
  int64_t max_seq_len = 2048;
  TrainOn train_on = TrainOn::kAll;
};

}  // namespace pmetal::jobs
