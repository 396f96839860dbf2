// Options of `pmetal dataset validate`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct DatasetValidateOptions {
  std::string path;
  std::string split = "train";
  std::optional<std::string> model;
  int64_t max_seq_len = 2048;
  TrainOn train_on = TrainOn::kAll;
};

}  // namespace pmetal::jobs
