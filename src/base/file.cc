#include "base/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

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

void sync_fd(int fd, const fs::path& path) {
  try {
    fault_point("sync");
  } catch (const Error&) {
    errno = ENOSPC;
    fail_io(path, "cannot sync");
  }
  if (::fsync(fd) != 0) fail_io(path, "cannot sync");
}

std::string temporary_suffix() {
  static std::atomic<uint64_t> counter{0};
  return fmt::format(".tmp-{}-{}", ::getpid(), counter.fetch_add(1));
}

}  // namespace

void fault_point(const char* point) {
  struct Fault {
    std::string point;
    long n = -1;
    bool kill = false;
    std::atomic<long> passed{0};
    Fault() {
      const char* text = std::getenv("PMETAL_FAULT");
      if (!text) return;
      const std::string_view view = text;
      const size_t colon = view.find(':');
      point = view.substr(0, colon);
      n = colon == std::string_view::npos ? 1 : std::strtol(text + colon + 1, nullptr, 10);
      kill = view.ends_with(":kill");
    }
  };
  static Fault fault;
  if (fault.n < 0 || fault.point != point) return;
  if (fault.passed.fetch_add(1) + 1 != fault.n) return;
  if (fault.kill) ::kill(::getpid(), SIGKILL);
  fail(ErrorCode::kIo, "injected fault at {}", point);
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

Buffer map_file(const fs::path& path) {
  const Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (fd.value < 0) fail_io(path, "cannot open");
  struct stat st {};
  if (::fstat(fd.value, &st) != 0) fail_io(path, "cannot read");
  if (!S_ISREG(st.st_mode)) fail(ErrorCode::kIo, "{}: is not a regular file", path.string());
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

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)), temporary_(path_.string() + temporary_suffix()) {
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_io(path_, "cannot create");
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    try {
      fault_point("write");
    } catch (const Error&) {
      errno = ENOSPC;
      fail_io(path_, "cannot write");
    }
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
  ::close(fd_);
  fd_ = -1;
  try {
    fault_point("rename");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_io(path_, "cannot rename");
  } catch (...) {
    ::unlink(temporary_.c_str());
    throw;
  }
  sync_directory(path_.has_parent_path() ? path_.parent_path() : fs::path("."));
}

void write_file_atomic(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

AtomicDirectory::AtomicDirectory(fs::path path)
    : path_(std::move(path)), temporary_(path_.string() + temporary_suffix()) {
  std::error_code error;
  fs::create_directories(temporary_, error);
  if (error) {
    errno = error.value();
    fail_io(path_, "cannot create folder");
  }
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
}

void AtomicDirectory::commit() {
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(temporary_)) {
    if (!entry.is_regular_file()) continue;
    const Fd fd{::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC)};
    if (fd.value < 0) fail_io(entry.path(), "cannot open");
    sync_fd(fd.value, entry.path());
  }
  sync_directory(temporary_);
  fault_point("rename");
  const fs::path old = path_.string() + temporary_suffix();
  const bool replaces = fs::exists(path_);
  if (replaces && ::rename(path_.c_str(), old.c_str()) != 0) fail_io(path_, "cannot move aside");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_io(path_, "cannot rename");
  committed_ = true;
  sync_directory(path_.has_parent_path() ? path_.parent_path() : fs::path("."));
  std::error_code ignored;
  if (replaces) fs::remove_all(old, ignored);
}

void sync_directory(const fs::path& path) {
  const Fd fd{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (fd.value < 0) fail_io(path, "cannot open folder");
  if (::fsync(fd.value) != 0 && errno != EINVAL) fail_io(path, "cannot sync folder");
}

}  // namespace pmetal
