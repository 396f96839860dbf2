// Options of `pmetal inspect`: what a checkpoint holds.
#pragma once

#include <optional>
#include <string>

namespace pmetal::jobs {

struct InspectOptions {
  std::string model;
  bool tensors = false;
};

}  // namespace pmetal::jobs
