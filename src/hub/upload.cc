#include "hub/upload.h"

#include <algorithm>
#include <map>
#include <set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/json.h"
#include "hub/digest.h"
#include "hub/lfs.h"
#include "hub/workers.h"

namespace pmetal::hub {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kSampleBytes = 512;               // by which the hub tells text from the rest
constexpr size_t kPreuploadBatch = 256;            // files of one question
constexpr int64_t kMaxInline = int64_t{16} << 20;  // inside a commit; more goes by LFS whatever the hub says
constexpr int64_t kMaxFiles = 20000;               // of one commit

struct LocalFile {
  std::string name;  // in the repository
  fs::path path;
  int64_t size = 0;
  fs::file_time_type changed;
  std::string sha256 = {};  // known for LFS
  bool is_lfs = false;
};

std::string text_at(const Json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

bool stays_here(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.starts_with('.') || is_temporary_name(path) || (name == "checkpoints" && fs::is_directory(path));
}

LocalFile local_file(const fs::path& path, const std::string& name) {
  if (!is_safe_path(name))
    fail(ErrorCode::kUsage, "{}: its name cannot be one of the hub; rename it or leave it out", path.string());
  std::error_code error;
  LocalFile file{name, path, static_cast<int64_t>(fs::file_size(path, error)), fs::last_write_time(path, error)};
  if (error) fail(ErrorCode::kIo, "{}: cannot be read: {}", path.string(), error.message());
  return file;
}

std::vector<LocalFile> collect(const UploadRequest& request) {
  std::string prefix = request.folder;
  while (prefix.ends_with('/')) prefix.pop_back();
  if (!prefix.empty() && !is_safe_path(prefix))
    fail(ErrorCode::kUsage, "\"{}\" is no folder of a repository: plain names with / between, no ..", request.folder);
  if (!prefix.empty()) prefix += '/';
  std::vector<LocalFile> files;
  if (fs::is_regular_file(request.source)) {
    files.push_back(local_file(request.source, prefix + request.source.filename().string()));
    return files;
  }
  if (!fs::is_directory(request.source))
    fail(ErrorCode::kNotFound, "{}: no such file or folder", request.source.string());
  std::error_code error;
  fs::recursive_directory_iterator walk(request.source, error);
  for (; !error && walk != fs::recursive_directory_iterator(); walk.increment(error)) {
    if (stays_here(walk->path())) {
      walk.disable_recursion_pending();
      continue;
    }
    if (!walk->is_regular_file()) continue;
    files.push_back(local_file(walk->path(), prefix + fs::relative(walk->path(), request.source).generic_string()));
    if (static_cast<int64_t>(files.size()) > kMaxFiles)
      fail(ErrorCode::kUsage, "{}: more than {} files; upload its folders one by one", request.source.string(),
           kMaxFiles);
  }
  if (error) fail(ErrorCode::kIo, "{}: cannot be listed: {}", request.source.string(), error.message());
  if (files.empty()) fail(ErrorCode::kInvalidInput, "{}: holds no file to upload", request.source.string());
  std::sort(files.begin(), files.end(), [](const LocalFile& a, const LocalFile& b) { return a.name < b.name; });
  return files;
}

std::string read_sample(const LocalFile& file) {
  if (file.size == 0) return "";
  const Buffer bytes = map_file(file.path);
  const size_t n = std::min(kSampleBytes, static_cast<size_t>(bytes.size_bytes()));
  return {reinterpret_cast<const char*>(bytes.data()), n};
}

class Upload {
 public:
  Upload(const Settings& settings, const UploadRequest& request, const OnProgress& on_progress)
      : settings_(settings), request_(request), repo_(request.repo), on_progress_(on_progress) {}

  Uploaded run() {
    files_ = collect(request_);
    online([&](HttpClient& client) {
      if (!request_.only_plan) create(client);
      list(client);
      leave_out_unchanged();
      choose_modes(client);
    });
    for (const LocalFile& f : files_) {
      result_.sent.push_back(f.name);
      result_.bytes += f.size;
    }
    result_.commit = head_;
    if (request_.only_plan || files_.empty()) return result_;
    send_large();
    check_unchanged();
    online([&](HttpClient& client) { commit(client); });
    result_.commit = head_;
    result_.bytes_sent = sent_;
    return result_;
  }

 private:
  void online(const HubTask& task) {
    run_tasks(settings_, stop_, {task}, [this] { return report(); });
  }

  bool report() const {
    return !on_progress_ ||
           on_progress_({.files_done = lfs_done_, .files = n_lfs_, .bytes_done = sent_, .bytes = lfs_bytes_});
  }

  HttpResponse post(HttpClient& client, const std::string& path, const Json& body) const {
    return client.send_patiently({.method = "POST",
                                  .url = settings_.endpoint + path,
                                  .headers = {"Content-Type: application/json"},
                                  .body = formats::dump_json(body, -1)});
  }

  void create(HttpClient& client) const {
    const size_t slash = repo_.name.find('/');
    Json body{{"name", repo_.name.substr(slash + 1)}, {"organization", repo_.name.substr(0, slash)}};
    if (repo_.kind == RepoKind::kDataset) body["type"] = "dataset";
    body["private"] = request_.is_private;
    const HttpResponse r = post(client, "/api/repos/create", body);
    // 409: it exists. 403: no right to create; it may exist all the same, and the list tells.
    if (r.status / 100 != 2 && r.status != 409 && r.status != 403) fail_status(r, "creating " + repo_.name, settings_);
  }

  void list(HttpClient& client) {
    try {
      const RepoListing listing = list_repo(client, settings_, repo_);
      head_ = listing.commit;
      for (const RepoFile& f : listing.files) there_[f.name] = f;
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kNotFound || !request_.only_plan) throw;
    }
  }

  static bool is_same(const LocalFile& file, const RepoFile& there) {
    if (there.size >= 0 && there.size != file.size) return false;
    if (!there.sha256.empty()) return there.sha256 == sha256_of_file(file.path);
    return !there.blob.empty() && there.blob == git_sha1_of_file(file.path);
  }

  void leave_out_unchanged() {
    std::erase_if(files_, [&](const LocalFile& f) {
      const auto found = there_.find(f.name);
      if (found == there_.end() || !is_same(f, found->second)) return false;
      result_.unchanged.push_back(f.name);
      return true;
    });
  }

  // which files are large ones, and which the repository's .gitignore keeps out
  void choose_modes(HttpClient& client) {
    std::set<std::string> ignored;
    for (size_t begin = 0; begin < files_.size(); begin += kPreuploadBatch) {
      const size_t end = std::min(begin + kPreuploadBatch, files_.size());
      if (head_.empty()) break;  // a plan of a repository that does not exist: nobody to ask
      Json list = Json::array();
      for (size_t i = begin; i < end; ++i)
        list.push_back(
            {{"path", files_[i].name}, {"sample", base64(read_sample(files_[i]))}, {"size", files_[i].size}});
      const std::string what = repo_.name + ": how its files are kept";
      const HttpResponse r =
          post(client, api_path(repo_) + "/preupload/" + escape_value(repo_.revision), Json{{"files", list}});
      if (r.status / 100 != 2) fail_status(r, what, settings_);
      const Json answer = formats::parse_json(r.body, what);
      std::map<std::string, const Json*> by_path;
      if (answer.contains("files") && answer["files"].is_array())
        for (const Json& entry : answer["files"]) by_path[text_at(entry, "path")] = &entry;
      for (size_t i = begin; i < end; ++i) {
        const auto found = by_path.find(files_[i].name);
        const std::string mode = found == by_path.end() ? "" : text_at(*found->second, "uploadMode");
        if (mode != "lfs" && mode != "regular")
          fail(ErrorCode::kInvalidInput, "{}: {}: the hub says \"{}\" where \"lfs\" or \"regular\" was expected", what,
               files_[i].name, mode);
        files_[i].is_lfs = (mode == "lfs" && files_[i].size > 0) || files_[i].size > kMaxInline;
        const auto ignore = found->second->find("shouldIgnore");
        if (ignore != found->second->end() && ignore->is_boolean() && ignore->get<bool>())
          ignored.insert(files_[i].name);
      }
    }
    std::erase_if(files_, [&](const LocalFile& f) { return ignored.contains(f.name); });
    result_.left_out.assign(ignored.begin(), ignored.end());
  }

  void send_large() {
    std::vector<LfsObject> objects;
    std::set<std::string> known;
    for (LocalFile& f : files_) {
      if (!f.is_lfs) continue;
      if (!report()) fail(ErrorCode::kCancelled, "stopped on request");
      f.sha256 = sha256_of_file(f.path);
      if (known.insert(f.sha256).second) objects.push_back({f.sha256, f.size, f.path.string()});
    }
    std::vector<HubTask> tasks;
    online([&](HttpClient& client) {
      for (size_t begin = 0; begin < objects.size(); begin += kLfsBatch) {
        const std::vector<LfsObject> part(
            objects.begin() + static_cast<std::ptrdiff_t>(begin),
            objects.begin() + static_cast<std::ptrdiff_t>(std::min(begin + kLfsBatch, objects.size())));
        for (HubTask& task : plan_lfs_uploads(client, settings_, repo_, part, sent_))
          tasks.push_back([this, task = std::move(task)](HttpClient& c) {
            task(c);
            ++lfs_done_;
          });
      }
    });
    n_lfs_ = static_cast<int64_t>(tasks.size());
    for (const LfsObject& o : objects) lfs_bytes_ += o.size;
    run_tasks(settings_, stop_, tasks, [this] { return report(); });
  }

  void check_unchanged() const {
    for (const LocalFile& f : files_) {
      const LocalFile now = local_file(f.path, f.name);
      if (now.size != f.size || now.changed != f.changed)
        fail(ErrorCode::kIo, "{}: was changed while it was sent; start again once it is finished", f.path.string());
    }
  }

  std::string commit_lines() const {
    const std::string summary = !request_.message.empty() ? request_.message : "Upload with pmetal";
    const auto line = [](const char* key, Json value) {
      return formats::dump_json(Json{{"key", key}, {"value", std::move(value)}}, -1) + "\n";
    };
    std::string body = line("header", {{"summary", summary}, {"description", ""}, {"parentCommit", head_}});
    for (const LocalFile& f : files_)
      body += f.is_lfs
                  ? line("lfsFile", {{"path", f.name}, {"algo", "sha256"}, {"oid", f.sha256}, {"size", f.size}})
                  : line("file", {{"content", base64(read_text(f.path))}, {"path", f.name}, {"encoding", "base64"}});
    return body;
  }

  // Whether the branch has moved on and now holds what was to be committed: the answer to a commit may get lost.
  bool has_arrived(HttpClient& client) {
    const RepoListing now = list_repo(client, settings_, repo_);
    if (now.commit == head_) return false;
    std::map<std::string, RepoFile> by_name;
    for (const RepoFile& f : now.files) by_name[f.name] = f;
    const bool all = std::all_of(files_.begin(), files_.end(), [&](const LocalFile& f) {
      const auto found = by_name.find(f.name);
      return found != by_name.end() && is_same(f, found->second);
    });
    if (!all)
      fail(ErrorCode::kIo, "{}: someone else changed {} meanwhile (commit {}); start again to upload on top of it",
           repo_.name, repo_.revision, now.commit);
    head_ = now.commit;
    return true;
  }

  void commit(HttpClient& client) {
    const HttpRequest question{.method = "POST",
                               .url = settings_.endpoint + api_path(repo_) + "/commit/" + escape_value(repo_.revision),
                               .headers = {"Content-Type: application/x-ndjson"},
                               .body = commit_lines()};
    const std::string what = repo_.name + ": commit";
    for (int attempt = 1;; ++attempt) {
      std::string problem, retry_after;
      try {
        const HttpResponse r = client.send(question);
        if (r.status / 100 == 2) {
          const Json answer = formats::parse_json(r.body, what);
          if (!is_commit(text_at(answer, "commitOid")))
            fail(ErrorCode::kInvalidInput, "{}: the answer of {} names no commit; is HF_ENDPOINT right?", what,
                 settings_.endpoint);
          head_ = text_at(answer, "commitOid");
          return;
        }
        if (r.status == 412 || r.status == 409) {  // the branch is not where it was
          if (has_arrived(client)) return;
        } else if (!is_worth_another_attempt(r.status)) {
          fail_status(r, what, settings_);
        }
        problem = fmt::format("{}: {} answers with status {}", what, settings_.endpoint, r.status);
        retry_after = r.header("retry-after");
      } catch (const TransportError& e) {
        problem = e.message;
      }
      if (has_arrived(client)) return;
      if (attempt >= settings_.attempts)
        fail(ErrorCode::kIo, "{} ({} attempts); start again later: large files have arrived and are not sent twice",
             problem, attempt);
      client.pause(attempt, retry_after);
    }
  }

  const Settings& settings_;
  const UploadRequest& request_;
  const RepoId& repo_;
  const OnProgress& on_progress_;
  std::vector<LocalFile> files_;
  std::map<std::string, RepoFile> there_;
  std::string head_;  // commit of the branch
  Uploaded result_;
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> sent_{0}, lfs_done_{0}, n_lfs_{0}, lfs_bytes_{0};
};

}  // namespace

Uploaded upload(const Settings& settings, const UploadRequest& request, const OnProgress& on_progress) {
  check_repo(request.repo);
  if (request.repo.name.find('/') == std::string::npos)
    fail(ErrorCode::kUsage, "\"{}\" has no owner; write org/name", request.repo.name);
  if (settings.offline)
    fail(ErrorCode::kUsage, "{}: nothing is uploaded, because HF_HUB_OFFLINE is set; unset it", request.repo.name);
  if (settings.token.empty())
    fail(ErrorCode::kUsage, "{}: uploading needs an access token with write permission; set HF_TOKEN",
         request.repo.name);
  return Upload(settings, request, on_progress).run();
}

}  // namespace pmetal::hub
