// Options of `pmetal init`: a commented sample configuration.
#pragma once

#include <string>

namespace pmetal::jobs {

struct InitOptions {
  std::string output = "config.yaml";
  bool force = false;
};

}  // namespace pmetal::jobs
