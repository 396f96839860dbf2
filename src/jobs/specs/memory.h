// Options of `pmetal memory`: what is in use, and with a model what its commands would take.
#pragma once

#include <optional>
#include <string>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct MemoryOptions {
  std::optional<std::string> model;
  ComputeDtype dtype = ComputeDtype::kBF16;
  int64_t context_length = 4096;
  int64_t batch_size = 1;
  int64_t lora_r = 16;
  DeviceChoice device = DeviceChoice::kAuto;
  int64_t threads = 0;
};

}  // namespace pmetal::jobs
