// Options of `pmetal search`.
#pragma once

#include <string>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct SearchOptions {
  std::string query;
  int64_t limit = 15;
  bool detailed = false;
  bool download = false;
};

}  // namespace pmetal::jobs
