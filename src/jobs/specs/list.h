// Options of `pmetal list`: the tables of this build.
#pragma once

#include <string>

namespace pmetal::jobs {

struct ListOptions {
  std::string table = "all";
};

}  // namespace pmetal::jobs
