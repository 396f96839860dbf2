// Options of `pmetal fuse`: add an adapter to the weights of its base model.
#pragma once

#include <optional>
#include <string>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct FuseOptions {
  std::string model;
  std::string lora;
  std::string output_dir;
  std::optional<double> alpha;
  std::optional<int64_t> rank;
  bool accurate = false;
  int64_t threads = 0;
};

}  // namespace pmetal::jobs
