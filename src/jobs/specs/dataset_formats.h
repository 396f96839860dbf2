// Options of `pmetal dataset formats`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct DatasetFormatsOptions {};

}  // namespace pmetal::jobs
