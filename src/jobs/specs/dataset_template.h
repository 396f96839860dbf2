// Options of `pmetal dataset template`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct DatasetTemplateOptions {
  std::string input;
  std::string output;
  std::string template_name = "auto";
  std::string system;
  std::optional<std::string> model;
  bool add_generation_prompt = false;
  bool mask_prompt = false;
};

}  // namespace pmetal::jobs
