#include "hub/cache.h"

#include <unistd.h>

#include "base/error.h"

namespace pmetal::hub {

void make_folders(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error)
    fail(ErrorCode::kIo, "{}: cannot create folder: {}; HF_HOME or HF_HUB_CACHE choose another place", path.string(),
         error.message());
}

RepoCache::RepoCache(const fs::path& cache, const RepoId& repo)
    : folder_(cache / cache_folder(repo)), locks_(cache / ".locks" / cache_folder(repo)) {}

std::optional<fs::path> RepoCache::find_snapshot(const std::string& revision) const {
  std::error_code ignored;
  if (fs::is_directory(snapshot(revision), ignored)) return snapshot(revision);
  const fs::path ref = folder_ / "refs" / revision;
  if (fs::is_regular_file(ref, ignored)) {
    std::string commit = read_text(ref);
    while (!commit.empty() && (commit.back() == '\n' || commit.back() == ' ')) commit.pop_back();
    if (is_safe_path(commit) && fs::is_directory(snapshot(commit), ignored)) return snapshot(commit);
  }
  if (revision != "main" || !fs::is_directory(folder_ / "snapshots", ignored)) return std::nullopt;
  std::optional<fs::path> newest;
  fs::file_time_type time;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_ / "snapshots")) {
    if (!entry.is_directory() || (newest && entry.last_write_time() <= time)) continue;
    newest = entry.path();
    time = entry.last_write_time();
  }
  return newest;
}

void RepoCache::link(const std::string& commit, const std::string& file, const std::string& etag) const {
  const fs::path link = snapshot(commit) / file;
  make_folders(link.parent_path());
  const fs::path target = fs::relative(folder_ / "blobs", link.parent_path()) / etag;
  std::error_code error;
  if (fs::read_symlink(link, error) == target) return;
  const fs::path temporary = link.string() + fmt::format(".tmp-{}", ::getpid());
  fs::remove(temporary, error);
  fs::create_symlink(target, temporary, error);
  if (!error) fs::rename(temporary, link, error);
  if (error)
    fail(ErrorCode::kIo,
         "{}: cannot make a link to the downloaded file: {}; the cache needs a file system with symbolic links",
         link.string(), error.message());
}

void RepoCache::write_ref(const std::string& revision, const std::string& commit) const {
  if (revision == commit) return;
  const fs::path ref = folder_ / "refs" / revision;
  make_folders(ref.parent_path());
  write_file_atomic(ref, commit);
}

}  // namespace pmetal::hub
