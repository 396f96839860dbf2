// Options of `pmetal dataset prepare`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct DatasetPrepareOptions {
  std::string input;
  std::string output_dir;
  std::string model;
  std::string template_name = "auto";
  int64_t max_seq_len = 2048;
  double val_ratio = 0.05;
  uint64_t seed = 42;
  bool no_dedup = false;
  std::string columns;
};

}  // namespace pmetal::jobs
