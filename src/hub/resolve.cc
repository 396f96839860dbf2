#include "hub/resolve.h"

#include "base/error.h"
#include "hub/cache.h"

namespace pmetal::hub {

Resolved resolve(const Settings& settings, const std::string& name, Purpose purpose, const OnProgress& on_progress,
                 const std::string& revision) {
  std::error_code ignored;
  if (fs::exists(name, ignored) || !is_hub_id(name)) return {.path = name};
  const RepoId repo{purpose == Purpose::kDataset ? RepoKind::kDataset : RepoKind::kModel, name, revision};
  check_repo(repo);
  const auto cached = RepoCache(settings.cache, repo).find_snapshot(revision);
  if (cached && is_complete(*cached, purpose)) return {.path = *cached, .is_from_hub = true};
  if (settings.offline)
    fail(ErrorCode::kNotFound,
         "{}: no such file or folder, {} in the cache {}, and HF_HUB_OFFLINE is set; unset it to download", name,
         cached ? "only a part of it" : "nothing of that name", settings.cache.string());
  Resolved resolved{.is_from_hub = true};
  try {
    resolved.download = download_snapshot(settings, repo, purpose, on_progress);
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kCancelled) throw;
    throw Error(e.code(), fmt::format("{}: no such file or folder here; as a name of the hub: {}", name, e.what()));
  }
  resolved.path = resolved.download.folder;
  return resolved;
}

}  // namespace pmetal::hub
