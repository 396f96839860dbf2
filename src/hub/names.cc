#include "hub/names.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"

namespace pmetal::hub {
namespace {

bool is_word(std::string_view text) {
  return !text.empty() && text.size() <= 96 && text != "." && text != ".." &&
         std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.'; });
}

bool is_repo_name(std::string_view name) {
  const size_t slash = name.find('/');
  if (slash == std::string_view::npos) return is_word(name) && name[0] != '.';
  return is_word(name.substr(0, slash)) && is_word(name.substr(slash + 1)) && name[0] != '.';
}

std::string escape(std::string_view text, bool keep_slash) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const unsigned char c : text) {
    if (std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == '~' || (c == '/' && keep_slash)) {
      out += static_cast<char>(c);
    } else {
      out += '%';
      out += kHex[c >> 4];
      out += kHex[c & 15];
    }
  }
  return out;
}

}  // namespace

bool is_hub_id(std::string_view name) {
  constexpr std::string_view kFiles[] = {".json",        ".jsonl", ".csv",   ".tsv",  ".parquet",
                                         ".arrow",       ".txt",   ".md",    ".gz",   ".zst",
                                         ".safetensors", ".gguf",  ".model", ".yaml", ".yml"};
  return std::count(name.begin(), name.end(), '/') == 1 && is_repo_name(name) &&
         std::none_of(std::begin(kFiles), std::end(kFiles), [&](std::string_view e) { return name.ends_with(e); });
}

bool is_commit(std::string_view revision) {
  return revision.size() == 40 &&
         std::all_of(revision.begin(), revision.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

bool is_safe_path(std::string_view path) {
  if (path.empty() || path.size() > 1024) return false;
  if (std::any_of(path.begin(), path.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f || c == '\\'; }))
    return false;
  for (size_t begin = 0;;) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == ".." || part.size() > 255) return false;
    if (end == path.size()) return true;
    begin = end + 1;
  }
}

void check_repo(const RepoId& repo) {
  if (!is_repo_name(repo.name))
    fail(ErrorCode::kUsage, "\"{}\" is no name of the hub; it is written org/name, as in Qwen/Qwen3-0.6B", repo.name);
  if (!is_safe_path(repo.revision))
    fail(ErrorCode::kUsage, "revision \"{}\" is no branch, tag or commit", repo.revision);
}

std::string api_path(const RepoId& repo) {
  return (repo.kind == RepoKind::kModel ? "/api/models/" : "/api/datasets/") + escape_path(repo.name);
}

std::string resolve_path(const RepoId& repo) {
  return (repo.kind == RepoKind::kModel ? "/" : "/datasets/") + escape_path(repo.name) + "/resolve";
}

std::string git_path(const RepoId& repo) {
  return (repo.kind == RepoKind::kModel ? "/" : "/datasets/") + escape_path(repo.name) + ".git";
}

std::string cache_folder(const RepoId& repo) {
  std::string folder = repo.kind == RepoKind::kModel ? "models--" : "datasets--";
  for (const char c : repo.name) folder += c == '/' ? "--" : std::string(1, c);
  return folder;
}

std::string escape_path(std::string_view path) { return escape(path, true); }
std::string escape_value(std::string_view text) { return escape(text, false); }

}  // namespace pmetal::hub
