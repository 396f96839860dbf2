// Options of `pmetal dataset sample`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct DatasetSampleOptions {
  std::string input;
  std::string output;
  int64_t n = 100;
  uint64_t seed = 42;
};

}  // namespace pmetal::jobs
