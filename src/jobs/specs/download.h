// Options of `pmetal download`.
#pragma once

#include <string>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct DownloadOptions {
  std::string model;
  std::string revision = "main";
};

}  // namespace pmetal::jobs
