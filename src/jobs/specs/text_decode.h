// Options of `pmetal text decode`.
#pragma once

#include <optional>
#include <string>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct TextDecodeOptions {
  std::string tokenizer;
  bool skip_special = false;
};

}  // namespace pmetal::jobs
