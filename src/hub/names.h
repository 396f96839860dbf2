// Names that travel between the user, the hub and the disk. What the hub says becomes paths here, so everything is
// checked before it does.
#pragma once

#include <string>
#include <string_view>

namespace pmetal::hub {

enum class RepoKind { kModel, kDataset };

struct RepoId {
  RepoKind kind = RepoKind::kModel;
  std::string name;               // "org/name", or "name" for the old ones without an owner
  std::string revision = "main";  // branch, tag or commit
};

// Whether a name that is no local path may be one of the hub: exactly one '/', letters, digits, '-', '_' and '.' on
// both sides, not beginning with '/' or '.', and not the name of a file (its ending is none of a data or weight file).
bool is_hub_id(std::string_view name);

bool is_commit(std::string_view revision);  // 40 hexadecimal digits
// A relative path of plain components: not absolute, no "..", ".", empty part, backslash or control character.
bool is_safe_path(std::string_view path);

// throws Error(kUsage) unless name and revision can be asked for
void check_repo(const RepoId& repo);

std::string api_path(const RepoId& repo);         // "/api/models/org/name"
std::string resolve_path(const RepoId& repo);     // "/org/name/resolve", "/datasets/org/name/resolve"
std::string git_path(const RepoId& repo);         // "/org/name.git", "/datasets/org/name.git"
std::string cache_folder(const RepoId& repo);     // "models--org--name"
std::string escape_path(std::string_view path);   // percent-encoded, slashes kept
std::string escape_value(std::string_view text);  // percent-encoded, slashes too

}  // namespace pmetal::hub
