// A snapshot of a repository into the cache: several files and several ranges of each at once, continued where an
// earlier run stopped, every file held against its hash before it gets its name.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "hub/listing.h"

namespace pmetal::hub {

struct Progress {
  int64_t files_done = 0, files = 0;
  int64_t bytes_done = 0, bytes = 0;  // 0 of 0 until the sizes are known
};
// Called on the caller's thread, several times a second; false stops the download (Error(kCancelled)), which goes on
// from there the next time.
using OnProgress = std::function<bool(const Progress&)>;

struct Snapshot {
  fs::path folder;
  std::string commit;
  int64_t files = 0;
  int64_t bytes = 0;                    // of all files
  int64_t bytes_fetched = 0;            // over the network
  std::vector<std::string> unverified;  // files for which the server names no hash; their length was checked
};

// Errors: kNotFound (name, revision, access), kIo (network after all attempts, disk, hash), kInvalidInput (an answer
// that cannot be believed), kCancelled, kUsage (name).
Snapshot download_snapshot(const Settings& settings, const RepoId& repo, Purpose purpose,
                           const OnProgress& on_progress);

}  // namespace pmetal::hub
