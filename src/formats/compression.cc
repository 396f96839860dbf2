#include "formats/compression.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace pmetal::formats {
namespace {

constexpr size_t kChunk = size_t{1} << 18;
// zstd frames may ask for windows of gigabytes; its own command line refuses above 128 MiB unless told otherwise
constexpr int kMaxZstdWindowLog = 27;

class FileStream final : public InputStream {
 public:
  explicit FileStream(const fs::path& path) : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0)
      fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: cannot open: {}", path.string(),
           std::strerror(errno));
    ::posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
  }
  ~FileStream() override { ::close(fd_); }
  FileStream(const FileStream&) = delete;
  FileStream& operator=(const FileStream&) = delete;
  size_t read(char* to, size_t capacity) override {
    ssize_t n;
    do n = ::read(fd_, to, capacity);
    while (n < 0 && errno == EINTR);
    if (n < 0) fail(ErrorCode::kIo, "{}: cannot read: {}", path_.string(), std::strerror(errno));
    return static_cast<size_t>(n);
  }

 private:
  fs::path path_;
  int fd_;
};

class MemoryStream final : public InputStream {
 public:
  explicit MemoryStream(std::string_view bytes) : bytes_(bytes) {}
  size_t read(char* to, size_t capacity) override {
    const size_t n = std::min(capacity, bytes_.size());
    std::memcpy(to, bytes_.data(), n);
    bytes_.remove_prefix(n);
    return n;
  }

 private:
  std::string_view bytes_;
};

// Gives back the bytes that were looked at to learn the kind of the stream.
class PrefixedStream final : public InputStream {
 public:
  PrefixedStream(std::string prefix, std::unique_ptr<InputStream> rest)
      : prefix_(std::move(prefix)), rest_(std::move(rest)) {}
  size_t read(char* to, size_t capacity) override {
    if (used_ < prefix_.size()) {
      const size_t n = std::min(capacity, prefix_.size() - used_);
      std::memcpy(to, prefix_.data() + used_, n);
      used_ += n;
      return n;
    }
    return rest_->read(to, capacity);
  }

 private:
  std::string prefix_;
  size_t used_ = 0;
  std::unique_ptr<InputStream> rest_;
};

class GzipStream final : public InputStream {
 public:
  GzipStream(std::unique_ptr<InputStream> input, std::string name)
      : input_(std::move(input)), name_(std::move(name)), in_(kChunk) {
    if (inflateInit2(&z_, 15 + 16) != Z_OK) fail(ErrorCode::kOutOfMemory, "{}: cannot start gzip", name_);
  }
  ~GzipStream() override { inflateEnd(&z_); }
  GzipStream(const GzipStream&) = delete;
  GzipStream& operator=(const GzipStream&) = delete;
  size_t read(char* to, size_t capacity) override {
    z_.next_out = reinterpret_cast<Bytef*>(to);
    z_.avail_out = static_cast<uInt>(std::min<size_t>(capacity, 1u << 30));
    const uInt asked = z_.avail_out;
    while (z_.avail_out == asked) {
      if (z_.avail_in == 0) {
        const size_t n = input_->read(in_.data(), in_.size());
        if (n == 0) {
          if (!between_members_) fail(ErrorCode::kInvalidInput, "{}: the gzip stream is cut short", name_);
          return 0;
        }
        z_.next_in = reinterpret_cast<Bytef*>(in_.data());
        z_.avail_in = static_cast<uInt>(n);
      }
      if (between_members_) {
        inflateReset(&z_);
        between_members_ = false;
      }
      const int rc = inflate(&z_, Z_NO_FLUSH);
      if (rc == Z_STREAM_END)
        between_members_ = true;
      else if (rc != Z_OK && rc != Z_BUF_ERROR)
        fail(ErrorCode::kInvalidInput, "{}: gzip data is damaged: {}", name_, z_.msg ? z_.msg : "unknown block");
    }
    return asked - z_.avail_out;
  }

 private:
  std::unique_ptr<InputStream> input_;
  std::string name_;
  std::vector<char> in_;
  z_stream z_{};
  bool between_members_ = false;
};

class ZstdStream final : public InputStream {
 public:
  ZstdStream(std::unique_ptr<InputStream> input, std::string name)
      : input_(std::move(input)), name_(std::move(name)), in_(kChunk), context_(ZSTD_createDCtx(), ZSTD_freeDCtx) {
    if (!context_) fail(ErrorCode::kOutOfMemory, "{}: cannot start zstd", name_);
    ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, kMaxZstdWindowLog);
  }
  size_t read(char* to, size_t capacity) override {
    ZSTD_outBuffer out{to, capacity, 0};
    while (out.pos == 0) {
      if (source_.pos == source_.size) {
        const size_t n = input_->read(in_.data(), in_.size());
        if (n == 0) {
          // what the decoder still holds back comes out without further input
          const size_t left = in_frame_ ? ZSTD_decompressStream(context_.get(), &out, &source_) : 0;
          if (out.pos > 0) {
            in_frame_ = left != 0;
            return out.pos;
          }
          if (in_frame_) fail(ErrorCode::kInvalidInput, "{}: the zstd stream is cut short", name_);
          return 0;
        }
        source_ = {in_.data(), n, 0};
      }
      const size_t rc = ZSTD_decompressStream(context_.get(), &out, &source_);
      if (ZSTD_isError(rc))
        fail(ErrorCode::kInvalidInput, "{}: zstd data is damaged: {}", name_, ZSTD_getErrorName(rc));
      in_frame_ = rc != 0;
    }
    return out.pos;
  }

 private:
  std::unique_ptr<InputStream> input_;
  std::string name_;
  std::vector<char> in_;
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context_;
  ZSTD_inBuffer source_{nullptr, 0, 0};
  bool in_frame_ = false;
};

std::unique_ptr<InputStream> unwrap(std::unique_ptr<InputStream> input, std::string name) {
  std::string magic(4, '\0');
  size_t n = 0;
  while (n < magic.size()) {
    const size_t got = input->read(magic.data() + n, magic.size() - n);
    if (got == 0) break;
    n += got;
  }
  magic.resize(n);
  const bool is_gzip = magic.starts_with("\x1f\x8b");
  const bool is_zstd = magic == "\x28\xb5\x2f\xfd";
  auto whole = std::make_unique<PrefixedStream>(std::move(magic), std::move(input));
  if (is_gzip) return std::make_unique<GzipStream>(std::move(whole), std::move(name));
  if (is_zstd) return std::make_unique<ZstdStream>(std::move(whole), std::move(name));
  return whole;
}

}  // namespace

std::unique_ptr<InputStream> open_input(const fs::path& path) {
  return unwrap(std::make_unique<FileStream>(path), path.string());
}
std::unique_ptr<InputStream> open_bytes(std::string_view bytes, std::string name) {
  return unwrap(std::make_unique<MemoryStream>(bytes), std::move(name));
}

LineReader::LineReader(std::unique_ptr<InputStream> input, std::string name)
    : input_(std::move(input)), name_(std::move(name)), buffer_(kChunk, '\0') {}

bool LineReader::next(std::string_view& line) {
  size_t searched = begin_;
  for (;;) {
    const auto* newline = static_cast<const char*>(std::memchr(buffer_.data() + searched, '\n', end_ - searched));
    if (newline != nullptr || (ended_ && begin_ < end_)) {
      const size_t stop = newline ? static_cast<size_t>(newline - buffer_.data()) : end_;
      line = std::string_view(buffer_).substr(begin_, stop - begin_);
      const size_t next = newline ? stop + 1 : stop;
      offset_ += static_cast<int64_t>(next - begin_);
      begin_ = next;
      if (line.ends_with('\r')) line.remove_suffix(1);
      ++line_;
      return true;
    }
    if (ended_) return false;
    if (begin_ > 0) {  // a long line is not moved again for every piece that is read
      std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    searched = end_;
    if (end_ == buffer_.size()) {
      if (end_ >= kMaxRecordBytes)
        fail(ErrorCode::kInvalidInput,
             "{}:{}: the line is longer than {} bytes; is this a text file of one record per line?", name_, line_ + 1,
             kMaxRecordBytes);
      buffer_.resize(buffer_.size() * 2);
    }
    const size_t n = input_->read(buffer_.data() + end_, buffer_.size() - end_);
    end_ += n;
    ended_ = n == 0;
  }
}

}  // namespace pmetal::formats
