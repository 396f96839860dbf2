// Git LFS uploads: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md with the transfers "basic" (one PUT)
// and "multipart" (the hub's own: a PUT per part, then a POST that lists their ETags).
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "hub/http.h"
#include "hub/names.h"
#include "hub/workers.h"

namespace pmetal::hub {

struct LfsObject {
  std::string sha256;
  int64_t size = 0;
  std::string path;  // on this machine
};

// Asks the hub where each object shall go, and returns a task for each that it lacks. A task throws Error(kIo,
// kInvalidInput). `client` is used during the call only, `settings` and `sent` by the tasks; `sent` counts bytes under
// way. Objects: at most kLfsBatch.
inline constexpr size_t kLfsBatch = 256;
std::vector<HubTask> plan_lfs_uploads(HttpClient& client, const Settings& settings, const RepoId& repo,
                                      const std::vector<LfsObject>& objects, std::atomic<int64_t>& sent);

}  // namespace pmetal::hub
