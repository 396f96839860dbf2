// Options of `pmetal upload`.
#pragma once

#include <optional>
#include <string>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

enum class RepoType : uint8_t { kModel, kDataset };

struct UploadOptions {
  std::string path;
  std::string repo;
  RepoType type = RepoType::kModel;
  std::string revision = "main";
  std::string folder;
  std::string message;
  bool private_repo = false;
};

}  // namespace pmetal::jobs
