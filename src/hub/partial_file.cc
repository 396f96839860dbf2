#include "hub/partial_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <optional>
#include <sstream>

#include "base/error.h"

namespace pmetal::hub {
namespace {

[[noreturn]] void fail_system(const fs::path& path, const char* what) {
  fail(ErrorCode::kIo, "{}: {}: {}{}", path.string(), what, std::strerror(errno),
       errno == ENOSPC ? "; free space, or set HF_HUB_CACHE to a folder on another disk; the download goes on from here"
                       : "");
}

fs::path with_ending(const fs::path& blob, const char* ending) { return blob.string() + ending; }
fs::path data_of(const fs::path& blob) { return with_ending(blob, ".pmetal.incomplete"); }
fs::path record_of(const fs::path& blob) { return with_ending(blob, ".pmetal.progress"); }

std::string head_line(int64_t size, int64_t piece_bytes) {
  return fmt::format("pmetal download 1 size {} pieces {}", size, piece_bytes);
}

// bytes of each piece; nothing when the record is of another file, or its data is not there
std::optional<std::vector<int64_t>> read_record(const fs::path& blob, int64_t size, int64_t piece_bytes) {
  std::error_code ignored;
  if (!fs::is_regular_file(record_of(blob), ignored) || !fs::is_regular_file(data_of(blob), ignored)) return {};
  if (static_cast<int64_t>(fs::file_size(data_of(blob), ignored)) != size) return {};
  std::istringstream lines(read_text(record_of(blob)));
  std::string line;
  if (!std::getline(lines, line) || line != head_line(size, piece_bytes)) return {};
  std::vector<int64_t> done(static_cast<size_t>((size + piece_bytes - 1) / piece_bytes), 0);
  while (std::getline(lines, line)) {
    if (lines.eof()) break;  // a line without its end: the process was killed while writing it
    std::istringstream words(line);
    int64_t piece = -1, bytes = -1;
    words >> piece >> bytes;
    if (piece < 0 || piece >= static_cast<int64_t>(done.size()) || bytes < 0) return {};
    done[static_cast<size_t>(piece)] = std::min({bytes, piece_bytes, size - piece * piece_bytes});
  }
  return done;
}

}  // namespace

int64_t PartialFile::bytes_there(const fs::path& blob, int64_t size, int64_t piece_bytes) {
  const auto done = read_record(blob, size, piece_bytes);
  return done ? std::accumulate(done->begin(), done->end(), int64_t{0}) : 0;
}

PartialFile::PartialFile(const fs::path& blob, int64_t size, int64_t piece_bytes)
    : data_path_(data_of(blob)), record_path_(record_of(blob)), size_(size), piece_bytes_(piece_bytes) {
  const auto earlier = read_record(blob, size, piece_bytes);
  data_.value = ::open(data_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (data_.value < 0) fail_system(data_path_, "cannot create");
  record_.value = ::open(record_path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (record_.value < 0) fail_system(record_path_, "cannot create");
  done_.assign(static_cast<size_t>((size + piece_bytes - 1) / piece_bytes), 0);
  if (earlier) done_ = *earlier;
  start_record();
}

PartialFile::Fd::~Fd() {
  if (value >= 0) ::close(value);
}

// writes the record afresh, one line for each piece that has something
void PartialFile::start_record() {
  if (::ftruncate(record_.value, 0) != 0) fail_system(record_path_, "cannot write");
  if (::ftruncate(data_.value, size_) != 0) fail_system(data_path_, "cannot set its length");
  const std::string head = head_line(size_, piece_bytes_) + "\n";
  if (::write(record_.value, head.data(), head.size()) != static_cast<ssize_t>(head.size()))
    fail_system(record_path_, "cannot write");
  for (int64_t i = 0; i < pieces(); ++i)
    if (done(i) > 0) note(i);
}

int64_t PartialFile::length(int64_t piece) const { return std::min(piece_bytes_, size_ - begin(piece)); }

int64_t PartialFile::bytes_done() const { return std::accumulate(done_.begin(), done_.end(), int64_t{0}); }

void PartialFile::write_bytes(int64_t at, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(data_.value, bytes.data(), bytes.size(), at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_system(data_path_, "cannot write");
    at += n;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

void PartialFile::write(int64_t piece, std::string_view bytes) {
  int64_t& done = done_[static_cast<size_t>(piece)];
  PMETAL_ASSERT(done + static_cast<int64_t>(bytes.size()) <= length(piece), "piece {} overflows", piece);
  write_bytes(begin(piece) + done, bytes);
  done += static_cast<int64_t>(bytes.size());
}

void PartialFile::note(int64_t piece) {
  const std::string line = fmt::format("{} {}\n", piece, done(piece));
  const std::scoped_lock lock(mutex_);
  if (::write(record_.value, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    fail_system(record_path_, "cannot write");
}

void PartialFile::clear() {
  std::fill(done_.begin(), done_.end(), 0);
  start_record();
}

void PartialFile::write_at(int64_t at, std::string_view bytes) {
  PMETAL_ASSERT(at + static_cast<int64_t>(bytes.size()) <= size_, "{} overflows", data_path_.string());
  write_bytes(at, bytes);
}

void PartialFile::set_whole() {
  for (int64_t i = 0; i < pieces(); ++i) done_[static_cast<size_t>(i)] = length(i);
}

void PartialFile::take_name(const fs::path& blob) {
  if (::fsync(data_.value) != 0) fail_system(data_path_, "cannot sync");
  if (::rename(data_path_.c_str(), blob.c_str()) != 0) fail_system(blob, "cannot rename");
  ::unlink(record_path_.c_str());
  sync_directory(blob.parent_path());
}

}  // namespace pmetal::hub
