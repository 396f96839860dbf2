// Files: whole reads, read-only maps, and atomic writes. Everything that is saved goes to a temporary name, is synced,
// then renamed: a killed process leaves the old state or the new one. All failures throw Error(kIo / kNotFound) that
// names the path and the system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/buffer.h"
#include "base/fault.h"

namespace pmetal {

namespace fs = std::filesystem;

std::string read_text(const fs::path& path);  // whole file
Buffer map_file(const fs::path& path);        // read-only private map of the whole file; lazily paged
// Throws when `path` is a pipe, a device or a folder: for files whose size or second reading matters. Opens nothing,
// since opening a pipe waits for whoever fills it.
void require_regular_file(const fs::path& path);
// tells the kernel that these bytes of a map will not be needed again (drops resident pages)
void drop_mapped_pages(const Buffer& range);

// AtomicFile and AtomicDirectory write under a temporary name beside their destination and take its name in one step
// when commit() is called; without commit nothing remains. A process that was killed leaves its temporary behind: the
// next AtomicFile or AtomicDirectory for the same destination removes it (one that is still being written is locked,
// and stays). A destination that is a symbolic link keeps being one: what it points to is replaced.

// true for the temporary names of both; code that lists a folder skips them
bool is_temporary_name(const fs::path& path);

// Passes the fault points "write" (each write to the file), "sync" and "rename". Throws when the destination exists
// and is no regular file.
class AtomicFile {
 public:
  explicit AtomicFile(fs::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  int64_t size_bytes() const { return written_; }
  void commit();

 private:
  void flush();
  fs::path path_, temporary_;
  int fd_ = -1;
  int64_t written_ = 0;
  std::string buffer_;
};
void write_file_atomic(const fs::path& path, std::string_view text);

// A folder that is filled under its temporary name. commit() syncs everything inside, then takes the place of an
// existing folder by exchanging the two names, so that at every moment a whole folder is there; the old one is removed
// after. (A file system that cannot exchange names gets two renames; between them a kill leaves the old folder under
// its temporary name ending in ".old", which nothing removes and the error of the next reader does not hide.)
// Throws when the destination exists and is no folder.
class AtomicDirectory {
 public:
  explicit AtomicDirectory(fs::path path);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;
  const fs::path& temporary() const { return temporary_; }  // write here
  void commit();

 private:
  fs::path path_, temporary_;
  int fd_ = -1;
};

void sync_directory(const fs::path& path);

}  // namespace pmetal
