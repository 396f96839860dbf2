#include "hub/download.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <thread>

#include "base/checked.h"
#include "base/error.h"
#include "hub/cache.h"
#include "hub/digest.h"
#include "hub/partial_file.h"
#include "hub/workers.h"

namespace pmetal::hub {
namespace {

constexpr int64_t kDiskReserve = int64_t{64} << 20;  // left free, so that links, logs and the system still work

// "W/\"abc\"" and "\"abc\"" are abc
std::string bare_tag(std::string tag) {
  if (tag.starts_with("W/")) tag.erase(0, 2);
  if (tag.size() >= 2 && tag.front() == '"' && tag.back() == '"') tag = tag.substr(1, tag.size() - 2);
  return tag;
}

bool is_hex(const std::string& text, size_t n) {
  return text.size() == n && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

bool is_file_of_size(const fs::path& path, int64_t size) {
  std::error_code error;
  return fs::is_regular_file(path, error) && static_cast<int64_t>(fs::file_size(path, error)) == size && !error;
}

// One process at a time downloads a blob; the others wait and then find it there. Shared with Hugging Face's tools.
class BlobLock {
 public:
  BlobLock(const fs::path& path, const std::function<bool()>& tick) {
    make_folders(path.parent_path());
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) fail(ErrorCode::kIo, "{}: cannot create; choose a cache folder you may write to", path.string());
    while (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return;  // a file system without locks: as if alone
      if (!tick()) {
        ::close(fd_);
        fail(ErrorCode::kCancelled, "stopped on request");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
  ~BlobLock() { ::close(fd_); }
  BlobLock(const BlobLock&) = delete;
  BlobLock& operator=(const BlobLock&) = delete;

 private:
  int fd_ = -1;
};

// One content; files of a repository that are equal share it.
struct Blob {
  std::vector<std::string> names;  // in the repository
  std::string url;
  std::string etag, plain_tag, linked_tag;  // as the server first told them
  int64_t size = 0;
  std::string sha256, git_sha1;  // what the contents must have; at most one is set
  std::unique_ptr<BlobLock> lock;
  std::unique_ptr<PartialFile> partial;
  bool was_resumed = false;
  std::atomic<int64_t> tasks_left{0};
  std::atomic<bool> takes_no_ranges{false};
};

class SnapshotDownload {
 public:
  SnapshotDownload(const Settings& settings, const RepoId& repo, Purpose purpose, const OnProgress& on_progress)
      : settings_(settings), repo_(repo), purpose_(purpose), on_progress_(on_progress), cache_(settings.cache, repo) {}

  Snapshot run() {
    const std::function<bool()> tick = [this] { return report(); };
    std::vector<HubTask> tasks = {[&](HttpClient& client) { listing_ = list_repo(client, settings_, repo_); }};
    run_tasks(settings_, stop_, tasks, tick);
    const std::vector<RepoFile> files = select_files(listing_.files, purpose_);
    if (files.empty())
      fail(ErrorCode::kNotFound, "{}: none of its {} files is {}", repo_.name, listing_.files.size(),
           purpose_ == Purpose::kDataset     ? "one that datasets are read from"
           : purpose_ == Purpose::kTokenizer ? "part of a tokenizer"
                                             : "part of a model");
    std::vector<std::unique_ptr<Blob>> found(files.size());
    tasks.clear();
    for (size_t i = 0; i < files.size(); ++i)
      tasks.push_back([&, i](HttpClient& client) { found[i] = describe(client, files[i]); });
    run_tasks(settings_, stop_, tasks, tick);

    Snapshot snapshot;
    for (auto& blob : found) {
      Blob*& known = by_etag_[blob->etag];
      if (known) {
        known->names.push_back(blob->names[0]);
        continue;
      }
      known = blob.get();
      blobs_.push_back(std::move(blob));
    }
    // in one order, so that two processes that wait for each other's locks cannot
    std::sort(blobs_.begin(), blobs_.end(), [](const auto& a, const auto& b) { return a->etag < b->etag; });
    files_ = static_cast<int64_t>(blobs_.size());
    check_space();
    make_folders(cache_.folder() / "blobs");
    tasks.clear();
    for (const auto& blob : blobs_) {
      snapshot.bytes += blob->size;
      prepare(*blob, tasks, tick);
      if (blob->sha256.empty() && blob->git_sha1.empty()) snapshot.unverified.push_back(blob->names[0]);
    }
    run_tasks(settings_, stop_, tasks, tick);
    cache_.write_ref(repo_.revision, listing_.commit);
    report();
    snapshot.folder = cache_.snapshot(listing_.commit);
    snapshot.commit = listing_.commit;
    snapshot.files = static_cast<int64_t>(files.size());
    snapshot.bytes_fetched = fetched_;
    return snapshot;
  }

 private:
  std::string named(const Blob& blob) const { return repo_.name + ": " + blob.names[0]; }

  bool report() const {
    return !on_progress_ ||
           on_progress_({.files_done = files_done_, .files = files_, .bytes_done = here_, .bytes = bytes_});
  }

  // what the server's headers say of a file
  std::unique_ptr<Blob> describe(HttpClient& client, const RepoFile& file) {
    auto blob = std::make_unique<Blob>();
    blob->names = {file.name};
    blob->url = settings_.endpoint + resolve_path(repo_) + "/" + listing_.commit + "/" + escape_path(file.name);
    const std::string what = named(*blob);
    const HttpResponse r =
        client.send_patiently({.method = "HEAD", .url = blob->url, .until = {"x-linked-etag", "x-linked-size"}});
    const auto linked = [&](const char* name) {
      const auto found = r.linked.find(name);
      return found == r.linked.end() ? std::string() : found->second;
    };
    const bool is_answer = r.status / 100 == 2 || (r.status / 100 == 3 && !linked("x-linked-etag").empty());
    if (!is_answer) fail_status(r, what, settings_);
    if (const std::string commit = linked("x-repo-commit"); !commit.empty() && commit != listing_.commit)
      fail(ErrorCode::kIo, "{}: the hub answers with commit {} instead of {}; try again", what, commit,
           listing_.commit);
    blob->linked_tag = bare_tag(linked("x-linked-etag"));
    if (r.from_endpoint && r.status / 100 == 2) blob->plain_tag = bare_tag(r.header("etag"));
    blob->etag = !blob->linked_tag.empty()  ? blob->linked_tag
                 : !blob->plain_tag.empty() ? blob->plain_tag
                 : !file.sha256.empty()     ? file.sha256
                                            : file.blob;
    if (!is_safe_path(blob->etag) || blob->etag.size() > 200 || blob->etag.find('/') != std::string::npos)
      fail(ErrorCode::kInvalidInput, "{}: the server names no version of it (ETag \"{}\")", what, blob->etag);
    const std::string size = linked("x-linked-size").empty() ? r.header("content-length") : linked("x-linked-size");
    blob->size = size.empty() ? file.size : parse_size(size);
    if (blob->size < 0)
      fail(ErrorCode::kInvalidInput, "{}: the server says \"{}\" for its size, which is none", what, size);
    if (file.size >= 0 && file.size != blob->size)
      fail(ErrorCode::kInvalidInput, "{}: the hub's list says {} bytes, its server {}; try again later", what,
           file.size, blob->size);
    blob->sha256 = is_hex(blob->etag, 64) ? blob->etag : is_hex(file.sha256, 64) ? file.sha256 : "";
    if (blob->sha256.empty())
      blob->git_sha1 = is_hex(blob->etag, 40) ? blob->etag : is_hex(file.blob, 40) ? file.blob : "";
    if (is_hex(file.sha256, 64) && file.sha256 != blob->sha256)
      fail(ErrorCode::kInvalidInput, "{}: the hub's list says SHA-256 {}, its server {}; try again later", what,
           file.sha256, blob->sha256);
    return blob;
  }

  void check_space() {
    int64_t missing = kDiskReserve;
    for (const auto& blob : blobs_) {
      const fs::path path = cache_.blob(blob->etag);
      int64_t left = 0;
      if (!is_file_of_size(path, blob->size))
        left = blob->size - PartialFile::bytes_there(path, blob->size, settings_.piece_bytes);
      missing = checked_add(missing, left).value_or(INT64_MAX);
      bytes_ = checked_add(bytes_.load(), blob->size).value_or(INT64_MAX);
    }
    if (missing == kDiskReserve) return;
    make_folders(settings_.cache);
    std::error_code error;
    const fs::space_info space = fs::space(settings_.cache, error);
    if (!error && static_cast<uint64_t>(missing) > space.available)
      fail(ErrorCode::kIo,
           "{}: {:.2f} GB are still to be downloaded, but only {:.2f} GB are free in {}; free space, or set "
           "HF_HUB_CACHE to "
           "a folder on another disk",
           repo_.name, static_cast<double>(missing) / 1e9, static_cast<double>(space.available) / 1e9,
           settings_.cache.string());
  }

  // its lock, its partial file and its tasks; links it where it is there already
  void prepare(Blob& blob, std::vector<HubTask>& tasks, const std::function<bool()>& tick) {
    const fs::path path = cache_.blob(blob.etag);
    if (!is_file_of_size(path, blob.size)) blob.lock = std::make_unique<BlobLock>(cache_.lock(blob.etag), tick);
    if (is_file_of_size(path, blob.size)) {
      here_ += blob.size;
      link(blob);
      return;
    }
    blob.partial = std::make_unique<PartialFile>(path, blob.size, settings_.piece_bytes);
    here_ += blob.partial->bytes_done();
    blob.was_resumed = blob.partial->bytes_done() > 0;
    std::vector<int64_t> pieces;
    for (int64_t i = 0; i < blob.partial->pieces(); ++i)
      if (blob.partial->done(i) < blob.partial->length(i)) pieces.push_back(i);
    if (pieces.empty()) pieces.push_back(-1);  // nothing to fetch, but to check
    blob.tasks_left = static_cast<int64_t>(pieces.size());
    for (const int64_t piece : pieces)
      tasks.push_back([this, &blob, piece](HttpClient& client) {
        if (piece >= 0) fetch_piece(client, blob, piece);
        if (--blob.tasks_left == 0) finish(client, blob);
      });
  }

  void link(Blob& blob) {
    for (const std::string& name : blob.names) cache_.link(listing_.commit, name, blob.etag);
    blob.lock.reset();
    ++files_done_;
  }

  // the contents under way are still those that were announced
  void check_tag(const Blob& blob, const HttpResponse& r) const {
    const auto found = r.linked.find("x-linked-etag");
    std::string linked = found == r.linked.end() ? "" : found->second;
    if (linked.empty() && r.from_endpoint) linked = r.header("x-linked-etag");
    linked = bare_tag(linked);
    const std::string plain = r.from_endpoint ? bare_tag(r.header("etag")) : "";
    const bool linked_differs = !linked.empty() && !blob.linked_tag.empty() && linked != blob.linked_tag;
    const bool plain_differs = !plain.empty() && !blob.plain_tag.empty() && plain != blob.plain_tag;
    if (linked_differs || plain_differs)
      fail(ErrorCode::kIo, "{}: was changed on the server while it was downloaded (ETag {} became {}); try again",
           named(blob), blob.etag, linked_differs ? linked : plain);
  }

  void fetch_piece(HttpClient& client, Blob& blob, int64_t piece) {
    PartialFile& partial = *blob.partial;
    const int64_t length = partial.length(piece);
    struct Note {  // also when the transfer ends by an exception
      PartialFile& partial;
      int64_t piece, before;
      ~Note() {
        try {
          if (partial.done(piece) != before) partial.note(piece);
        } catch (const Error&) {  // then the next run fetches the piece again
        }
      }
    } note{partial, piece, partial.done(piece)};
    for (int attempt = 0; partial.done(piece) < length;) {
      if (blob.takes_no_ranges) return;
      const int64_t from = partial.begin(piece) + partial.done(piece);
      const int64_t last = partial.begin(piece) + length - 1;
      const int64_t before = partial.done(piece);
      bool too_long = false;
      const BodySink sink{.begin =
                              [&](const HttpResponse& r) {
                                check_tag(blob, r);
                                const bool is_range =
                                    r.status == 206 &&
                                    r.header("content-range") == fmt::format("bytes {}-{}/{}", from, last, blob.size);
                                const bool is_all = r.status == 200 && from == 0 && length == blob.size;
                                if (!is_range && !is_all) blob.takes_no_ranges = true;
                                return is_range || is_all;
                              },
                          .write =
                              [&](std::string_view bytes) {
                                too_long = static_cast<int64_t>(bytes.size()) > length - partial.done(piece);
                                if (too_long) return false;
                                partial.write(piece, bytes);
                                count(static_cast<int64_t>(bytes.size()));
                                return true;
                              }};
      std::string problem, retry_after;
      try {
        const HttpResponse r = client.send({.url = blob.url, .range = fmt::format("{}-{}", from, last)}, &sink);
        if (r.status == 416) blob.takes_no_ranges = true;
        if (r.status / 100 != 2 && r.status != 416) {
          if (!is_worth_another_attempt(r.status)) fail_status(r, named(blob), settings_);
          problem = fmt::format("{}: status {}", settings_.endpoint, r.status);
          retry_after = r.header("retry-after");
        }
      } catch (const TransportError& e) {
        problem = e.message;
      }
      if (too_long) blob.takes_no_ranges = true;
      if (blob.takes_no_ranges || partial.done(piece) == length) return;
      if (partial.done(piece) > before) attempt = 0;
      if (++attempt >= settings_.attempts) give_up(blob, problem, attempt);
      client.pause(attempt, retry_after);
    }
  }

  // front to back in one transfer, for servers that give no ranges
  void fetch_all(HttpClient& client, Blob& blob) {
    for (int attempt = 1;; ++attempt) {
      here_ -= blob.partial->bytes_done();
      blob.partial->clear();
      int64_t at = 0;
      bool too_long = false;
      const BodySink sink{.begin =
                              [&](const HttpResponse& r) {
                                check_tag(blob, r);
                                return true;
                              },
                          .write =
                              [&](std::string_view bytes) {
                                too_long = static_cast<int64_t>(bytes.size()) > blob.size - at;
                                if (too_long) return false;
                                blob.partial->write_at(at, bytes);
                                at += static_cast<int64_t>(bytes.size());
                                count(static_cast<int64_t>(bytes.size()));
                                return true;
                              }};
      std::string problem = "the transfer ended too early", retry_after;
      try {
        const HttpResponse r = client.send({.url = blob.url}, &sink);
        if (r.status / 100 != 2) {
          if (!is_worth_another_attempt(r.status)) fail_status(r, named(blob), settings_);
          problem = fmt::format("status {}", r.status);
          retry_after = r.header("retry-after");
        }
      } catch (const TransportError& e) {
        problem = e.message;
      }
      if (too_long)
        fail(ErrorCode::kIo, "{}: the server sends more than the {} bytes it announced", named(blob), blob.size);
      if (at == blob.size) return blob.partial->set_whole();
      here_ -= at;
      if (attempt >= settings_.attempts) give_up(blob, problem, attempt);
      client.pause(attempt, retry_after);
    }
  }

  [[noreturn]] void give_up(const Blob& blob, const std::string& problem, int attempts) const {
    fail(ErrorCode::kIo, "{}: {} ({} attempts); what has arrived is kept, start again to go on from there", named(blob),
         problem.empty() ? "the transfer ended too early" : problem, attempts);
  }

  void finish(HttpClient& client, Blob& blob) {
    if (!blob.partial->is_whole()) {
      blob.was_resumed = false;
      fetch_all(client, blob);
    }
    std::string is = hash_of(blob);
    if (is != wanted_hash(blob) && blob.was_resumed) {  // what an earlier run left may be to blame
      fetch_all(client, blob);
      is = hash_of(blob);
    }
    if (is != wanted_hash(blob)) {
      blob.partial->clear();
      fail(ErrorCode::kIo,
           "{}: its {} hash is {}, the hub says {}; the download was damaged and is thrown away, try again",
           named(blob), blob.sha256.empty() ? "Git" : "SHA-256", is, wanted_hash(blob));
    }
    blob.partial->take_name(cache_.blob(blob.etag));
    blob.partial.reset();
    link(blob);
  }

  static std::string hash_of(const Blob& blob) {
    if (!blob.sha256.empty()) return sha256_of_file(blob.partial->path());
    return blob.git_sha1.empty() ? "" : git_sha1_of_file(blob.partial->path());
  }
  static const std::string& wanted_hash(const Blob& blob) { return blob.sha256.empty() ? blob.git_sha1 : blob.sha256; }

  void count(int64_t bytes) {
    here_ += bytes;
    fetched_ += bytes;
  }

  const Settings& settings_;
  const RepoId& repo_;
  const Purpose purpose_;
  const OnProgress& on_progress_;
  const RepoCache cache_;
  RepoListing listing_;
  std::vector<std::unique_ptr<Blob>> blobs_;
  std::map<std::string, Blob*> by_etag_;
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> files_done_{0}, files_{0}, here_{0}, bytes_{0}, fetched_{0};
};

}  // namespace

Snapshot download_snapshot(const Settings& settings, const RepoId& repo, Purpose purpose,
                           const OnProgress& on_progress) {
  check_repo(repo);
  if (settings.offline)
    fail(ErrorCode::kNotFound, "{}: not downloaded, because HF_HUB_OFFLINE is set; unset it, or name a local folder",
         repo.name);
  return SnapshotDownload(settings, repo, purpose, on_progress).run();
}

}  // namespace pmetal::hub
