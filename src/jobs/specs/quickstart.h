// Options of `pmetal quickstart`: a language model from nothing, trained, fine-tuned and asked, on this machine.
#pragma once

#include <string>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

enum class Recipe : uint8_t { kAuto, kSmall, kMedium, kLarge };

struct QuickstartOptions {
  std::string output_dir = "./quickstart";
  Recipe recipe = Recipe::kAuto;
  uint64_t seed = 42;
  DeviceChoice device = DeviceChoice::kAuto;
  int64_t threads = 0;
};

}  // namespace pmetal::jobs
