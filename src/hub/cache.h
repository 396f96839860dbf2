// The cache on disk, laid out as Hugging Face's own tools lay it out, so that both use the same files:
//
//   <cache>/models--org--name/ (datasets--org--name/)
//     blobs/<etag>                     contents; the name is their SHA-256 or Git hash
//     snapshots/<commit>/<file>        symbolic links into blobs/
//     refs/<revision>                  the commit a branch or tag stood at
//   <cache>/.locks/models--org--name/<etag>.lock   held (flock) while a blob is downloaded
#pragma once

#include <optional>
#include <string>

#include "base/file.h"
#include "hub/names.h"

namespace pmetal::hub {

void make_folders(const fs::path& path);  // with all above it; Error(kIo)

class RepoCache {
 public:
  RepoCache(const fs::path& cache, const RepoId& repo);

  const fs::path& folder() const { return folder_; }
  fs::path blob(const std::string& etag) const { return folder_ / "blobs" / etag; }
  fs::path lock(const std::string& etag) const { return locks_ / (etag + ".lock"); }
  fs::path snapshot(const std::string& commit) const { return folder_ / "snapshots" / commit; }

  // The snapshot of the revision: the commit itself or what refs/ says. For "main" without a ref, the newest snapshot.
  // Nothing when there is none.
  std::optional<fs::path> find_snapshot(const std::string& revision) const;
  void link(const std::string& commit, const std::string& file, const std::string& etag) const;
  void write_ref(const std::string& revision, const std::string& commit) const;  // a commit gets none

 private:
  fs::path folder_, locks_;
};

}  // namespace pmetal::hub
