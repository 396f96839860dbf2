// Options of `pmetal probe`: run a model on given token ids and write what it computes, for comparison with other
// implementations.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct ProbeOptions {
  std::string model;
  std::optional<std::string> adapter;
  ComputeDtype dtype = ComputeDtype::kF32;
  std::optional<std::string> input_ids;  // "1,2,3;4,5"
  std::optional<std::string> inputs;
  bool hidden_states = false;
  bool loss = false;
  std::vector<std::string> grads;
  std::optional<int64_t> generate;
  std::string output;
  DeviceChoice device = DeviceChoice::kAuto;
  int64_t threads = 0;
};

}  // namespace pmetal::jobs
