// Options of `pmetal text render`.
#pragma once

#include <optional>
#include <string>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct TextRenderOptions {
  std::optional<std::string> model;
  std::optional<std::string> template_file;
};

}  // namespace pmetal::jobs
