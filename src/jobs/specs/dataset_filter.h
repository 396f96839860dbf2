// Options of `pmetal dataset filter`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct DatasetFilterOptions {
  std::string input;
  std::string output;
  std::optional<std::string> model;
  int64_t min_tokens = 0;
  int64_t max_tokens = 0;
  bool dedup = false;
  std::string pattern;
  bool invert = false;
  bool complete_only = false;
};

}  // namespace pmetal::jobs
