// Options of `pmetal init`: a commented sample configuration, or a checkpoint of random weights.
#pragma once

#include <optional>
#include <string>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct InitOptions {
  std::string output = "config.yaml";
  bool force = false;
  std::optional<std::string> random_model;
  ComputeDtype dtype = ComputeDtype::kBF16;
  uint64_t seed = 42;
  int64_t threads = 0;
};

}  // namespace pmetal::jobs
