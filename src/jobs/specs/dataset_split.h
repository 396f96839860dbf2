// Options of `pmetal dataset split`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct DatasetSplitOptions {
  std::string input;
  std::string output_dir;
  double val_ratio = 0.1;
  double test_ratio = 0;
  uint64_t seed = 42;
  std::string stratify;
};

}  // namespace pmetal::jobs
