// Options of `pmetal dataset merge`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct DatasetMergeOptions {
  std::vector<std::string> input;
  std::string output;
  bool shuffle = false;
  uint64_t seed = 42;
  bool interleave = false;
  std::vector<std::string> weights;
};

}  // namespace pmetal::jobs
