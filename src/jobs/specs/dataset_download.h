// Options of `pmetal dataset download`.
#pragma once

#include <optional>
#include <string>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct DatasetDownloadOptions {
  std::string dataset;
  std::string split = "train";
  std::optional<std::string> output;
  std::string revision = "main";
};

}  // namespace pmetal::jobs
