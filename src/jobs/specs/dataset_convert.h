// Options of `pmetal dataset convert`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

enum class OutputFormat : uint8_t { kAuto, kJsonl, kJson, kCsv, kParquet, kShareGpt, kAlpaca };

struct DatasetConvertOptions {
  std::string input;
  std::string output;
  OutputFormat format = OutputFormat::kAuto;
  std::string columns;
  bool shuffle = false;
  uint64_t seed = 42;
};

}  // namespace pmetal::jobs
