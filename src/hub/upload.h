// A file or folder of this machine into a repository of the hub, as one commit. Large files travel by Git LFS (whole or
// in parts, several at once), small ones inside the commit; what the repository has already is not sent again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hub/download.h"

namespace pmetal::hub {

struct UploadRequest {
  RepoId repo;              // revision: the branch
  fs::path source;          // a file, or a folder with all below it
  std::string folder = {};  // in the repository; empty: its top
  std::string message = {};
  bool is_private = false;  // of a repository that does not exist yet
  bool only_plan = false;   // nothing is created or sent
};

struct Uploaded {
  std::string commit;                  // the branch's head afterwards; empty for a plan of a repository to be made
  std::vector<std::string> sent;       // names in the repository; of a plan: what would be sent
  std::vector<std::string> unchanged;  // the repository has these contents under these names
  std::vector<std::string> left_out;   // the hub's .gitignore asks for it
  int64_t bytes = 0, bytes_sent = 0;   // of the files in `sent`; over the network, LFS only
};

// Of a folder, hidden files and folders, half-written files and `checkpoints` (the state a training run resumes from)
// stay here. Errors: kUsage (no token, offline, name), kNotFound (source, access), kIo (network after all attempts, a
// file that changes meanwhile), kInvalidInput (nothing to send, an answer that cannot be believed), kCancelled.
Uploaded upload(const Settings& settings, const UploadRequest& request, const OnProgress& on_progress);

}  // namespace pmetal::hub
