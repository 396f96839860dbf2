// Options of `pmetal text encode`.
#pragma once

#include <optional>
#include <string>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct TextEncodeOptions {
  std::string tokenizer;
  bool offsets = false;
  bool no_special = false;
  int64_t threads = 0;
};

}  // namespace pmetal::jobs
