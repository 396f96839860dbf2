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

namespace pmetal {

namespace fs = std::filesystem;

std::string read_text(const fs::path& path);  // whole file
Buffer map_file(const fs::path& path);        // read-only private map of the whole file; lazily paged
// tells the kernel that these bytes of a map will not be needed again (drops resident pages)
void drop_mapped_pages(const Buffer& range);

// Writes a file under a temporary name beside `path`; commit() syncs and renames. Without commit nothing remains.
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

// A folder filled under a temporary name, then renamed into place by commit() (an existing folder of that name is
// moved aside first and removed after). Files inside are synced by commit().
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
  bool committed_ = false;
};

void sync_directory(const fs::path& path);

// Fault injection for tests: PMETAL_FAULT="point:n[:kill]" makes the n-th passage of a point fail as if the disk were
// full (or kills the process there). Points: "write", "sync", "rename". Costs one load when unset.
void fault_point(const char* point);

}  // namespace pmetal
