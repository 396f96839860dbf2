#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace pmetal {
namespace {

constexpr size_t kWriteBuffer = size_t{1} << 20;

[[noreturn]] void fail_io(const fs::path& path, const char* what) {
  const int e = errno;
  const char* remedy = e == ENOSPC                               ? "; free space or choose another folder"
                       : e == EACCES || e == EROFS || e == EPERM ? "; choose a folder you may write to"
                       : e == ENOENT                             ? "; check the path"
                                                                 : "";
  fail(e == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: {}: {}{}", path.string(), what, std::strerror(e),
       remedy);
}

struct Fd {
  int value;
  ~Fd() {
    if (value >= 0) ::close(value);
  }
};

// a fault point fails as a full disk does
void fault(const char* point, const fs::path& path, const char* what) {
  if (!fault_due(point)) return;
  errno = ENOSPC;
  fail_io(path, what);
}

void sync_fd(int fd, const fs::path& path) {
  fault("sync", path, "cannot sync");
  if (::fsync(fd) != 0) fail_io(path, "cannot sync");
}

fs::path parent_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

// the destination itself: no trailing slash, symbolic links followed
fs::path resolve(fs::path path) {
  if (!path.has_filename()) path = path.parent_path();
  std::error_code error;
  if (!fs::is_symlink(path, error)) return path;
  fs::path target = fs::weakly_canonical(path, error);
  if (error) fail(ErrorCode::kIo, "{}: cannot follow the symbolic link: {}", path.string(), error.message());
  return target;
}

constexpr std::string_view kTemporary = ".tmp-";
constexpr std::string_view kAside = ".old";  // a folder moved aside where names cannot be exchanged

std::string temporary_suffix() {
  static std::atomic<uint64_t> counter{0};
  return fmt::format("{}{}-{}", kTemporary, ::getpid(), counter.fetch_add(1));
}

enum class Lock { kTaken, kHeldByOther, kNotSupported };
Lock lock(int fd) {
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return Lock::kTaken;
  return errno == EWOULDBLOCK ? Lock::kHeldByOther : Lock::kNotSupported;
}

// Locks a temporary that was just made. False when another process took it for a stale one meanwhile: make a new one.
bool claim(int fd, const fs::path& path) {
  if (lock(fd) == Lock::kHeldByOther) return false;
  struct stat opened {
  }, named{};
  return ::fstat(fd, &opened) == 0 && ::stat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

// removes temporaries of this destination whose process has ended (their lock is free)
void remove_stale_temporaries(const fs::path& path) {
  std::error_code ignored;
  const std::string prefix = path.filename().string() + std::string(kTemporary);
  for (const fs::directory_entry& entry : fs::directory_iterator(parent_of(path), ignored)) {
    const fs::path& found = entry.path();
    if (!found.filename().string().starts_with(prefix) || !is_temporary_name(found)) continue;
    if (found.extension() == kAside && !fs::exists(path, ignored)) continue;  // the only copy there is
    const Fd fd{::open(found.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC)};
    if (fd.value >= 0 && lock(fd.value) == Lock::kTaken) fs::remove_all(found, ignored);
  }
}

}  // namespace

bool is_temporary_name(const fs::path& path) {
  std::string name = path.filename().string();
  if (name.ends_with(kAside)) name.resize(name.size() - kAside.size());
  const size_t at = name.rfind(kTemporary);
  if (at == std::string::npos) return false;
  const std::string_view numbers = std::string_view(name).substr(at + kTemporary.size());
  return std::count(numbers.begin(), numbers.end(), '-') == 1 &&
         numbers.find_first_not_of("0123456789-") == std::string_view::npos;
}

std::string read_text(const fs::path& path) {
  const Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (fd.value < 0) fail_io(path, "cannot open");
  struct stat st {};
  if (::fstat(fd.value, &st) != 0) fail_io(path, "cannot read");
  if (S_ISDIR(st.st_mode)) fail(ErrorCode::kIo, "{}: is a folder, a file is needed", path.string());
  std::string text;
  text.reserve(static_cast<size_t>(st.st_size));
  char chunk[65536];
  for (;;) {
    const ssize_t n = ::read(fd.value, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io(path, "cannot read");
    if (n == 0) return text;
    text.append(chunk, static_cast<size_t>(n));
  }
}

void require_regular_file(const fs::path& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) fail_io(path, "cannot open");
  if (S_ISREG(st.st_mode)) return;
  if (S_ISDIR(st.st_mode)) fail(ErrorCode::kIo, "{}: is a folder, a file is needed", path.string());
  fail(ErrorCode::kIo, "{}: is a {}, a regular file is needed; write its content to a file first", path.string(),
       S_ISFIFO(st.st_mode)   ? "pipe"
       : S_ISSOCK(st.st_mode) ? "socket"
                              : "device");
}

Buffer map_file(const fs::path& path) {
  require_regular_file(path);
  const Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (fd.value < 0) fail_io(path, "cannot open");
  struct stat st {};
  if (::fstat(fd.value, &st) != 0) fail_io(path, "cannot read");
  const size_t size = static_cast<size_t>(st.st_size);
  if (size == 0) return Buffer(std::make_shared<int>(0), nullptr, 0, kCpu);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.value, 0);
  if (data == MAP_FAILED) fail_io(path, "cannot map");
  return Buffer(std::shared_ptr<void>(data, [size](void* p) { ::munmap(p, size); }), static_cast<std::byte*>(data),
                static_cast<int64_t>(size), kCpu);
}

void drop_mapped_pages(const Buffer& range) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(range.data()) + page - 1) / page * page;
  const auto end =
      (reinterpret_cast<uintptr_t>(range.data()) + static_cast<uintptr_t>(range.size_bytes())) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

AtomicFile::AtomicFile(fs::path path) : path_(resolve(std::move(path))) {
  std::error_code error;
  const fs::file_status status = fs::status(path_, error);
  if (fs::exists(status) && !fs::is_regular_file(status))
    fail(ErrorCode::kIo, "{}: exists and is not a regular file; choose another name", path_.string());
  remove_stale_temporaries(path_);
  while (fd_ < 0) {
    temporary_ = path_.string() + temporary_suffix();
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd_ < 0 && errno == EEXIST) continue;  // of a process with our number in another container
    if (fd_ < 0) fail_io(path_, "cannot create");
    if (!claim(fd_, temporary_)) ::close(std::exchange(fd_, -1));
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::unlink(temporary_.c_str());
  ::close(fd_);
}

void AtomicFile::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    fault("write", path_, "cannot write");
    const ssize_t n = ::write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io(path_, "cannot write");
    done += static_cast<size_t>(n);
  }
  buffer_.clear();
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void AtomicFile::write(std::string_view text) {
  PMETAL_ASSERT(fd_ >= 0, "write after commit to {}", path_.string());
  written_ += static_cast<int64_t>(text.size());
  while (!text.empty()) {
    const size_t room = kWriteBuffer - buffer_.size();
    const size_t n = std::min(room, text.size());
    buffer_.append(text.substr(0, n));
    text.remove_prefix(n);
    if (buffer_.size() == kWriteBuffer) flush();
  }
}

void AtomicFile::commit() {
  flush();
  sync_fd(fd_, path_);
  fault("rename", path_, "cannot rename");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_io(path_, "cannot rename");
  ::close(std::exchange(fd_, -1));
  sync_directory(parent_of(path_));
}

void write_file_atomic(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

AtomicDirectory::AtomicDirectory(fs::path path) : path_(resolve(std::move(path))) {
  std::error_code error;
  const fs::file_status status = fs::status(path_, error);
  if (fs::exists(status) && !fs::is_directory(status))
    fail(ErrorCode::kIo, "{}: exists and is not a folder; choose another name", path_.string());
  fs::create_directories(parent_of(path_), error);
  if (error) {
    errno = error.value();
    fail_io(parent_of(path_), "cannot create folder");
  }
  remove_stale_temporaries(path_);
  while (fd_ < 0) {
    temporary_ = path_.string() + temporary_suffix();
    if (::mkdir(temporary_.c_str(), 0755) != 0) {
      if (errno == EEXIST) continue;  // of a process with our number in another container
      fail_io(path_, "cannot create folder");
    }
    fd_ = ::open(temporary_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd_ >= 0 && !claim(fd_, temporary_)) ::close(std::exchange(fd_, -1));
  }
}

AtomicDirectory::~AtomicDirectory() {
  if (fd_ < 0) return;
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
  ::close(fd_);
}

void AtomicDirectory::commit() {
  PMETAL_ASSERT(fd_ >= 0, "second commit of {}", path_.string());
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(temporary_)) {
    if (!entry.is_regular_file() && !entry.is_directory()) continue;
    const Fd fd{::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC)};
    if (fd.value < 0) fail_io(entry.path(), "cannot open");
    sync_fd(fd.value, entry.path());
  }
  sync_fd(fd_, temporary_);
  fault("rename", path_, "cannot rename");
  const bool replaces = fs::exists(path_);
  fs::path old = temporary_;
  if (!replaces) {
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_io(path_, "cannot rename");
  } else if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) != 0) {
    if (errno != EINVAL && errno != ENOSYS) fail_io(path_, "cannot rename");
    old += kAside;
    if (::rename(path_.c_str(), old.c_str()) != 0) fail_io(path_, "cannot move aside");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
      const int reason = errno;
      ::rename(old.c_str(), path_.c_str());
      errno = reason;
      fail_io(path_, "cannot rename");
    }
  }
  ::close(std::exchange(fd_, -1));
  sync_directory(parent_of(path_));
  std::error_code ignored;  // what cannot be removed now, the next commit to this place removes
  if (replaces) fs::remove_all(old, ignored);
}

void sync_directory(const fs::path& path) {
  const Fd fd{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (fd.value < 0) fail_io(path, "cannot open folder");
  if (::fsync(fd.value) != 0 && errno != EINVAL) fail_io(path, "cannot sync folder");
}

}  // namespace pmetal
