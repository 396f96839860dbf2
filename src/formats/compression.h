// Streams of bytes (.gz, .zst, plain) read in constant memory, and their lines.
// Errors: Error(kInvalidInput) naming the object and the codec.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/file.h"

namespace pmetal::formats {

// A sequence of bytes read once from front to back.
class InputStream {
 public:
  virtual ~InputStream() = default;
  virtual size_t read(char* to, size_t capacity) = 0;  // bytes stored; 0 only at the end
};

// Opens a file; gzip (RFC 1952, several members) and zstd (RFC 8878, several frames) are told by their magic bytes.
std::unique_ptr<InputStream> open_input(const fs::path& path);
// the same over bytes that outlive the stream; `name` is used in messages
std::unique_ptr<InputStream> open_bytes(std::string_view bytes, std::string name);

// Lines of a stream without their end ("\n" or "\r\n"); the last line needs none.
class LineReader {
 public:
  LineReader(std::unique_ptr<InputStream> input, std::string name);
  bool next(std::string_view& line);          // valid until the next call
  int64_t line() const { return line_; }      // number of the line last returned, from 1
  int64_t offset() const { return offset_; }  // (uncompressed) bytes consumed so far

 private:
  std::unique_ptr<InputStream> input_;
  std::string name_, buffer_;
  size_t begin_ = 0, end_ = 0;
  int64_t line_ = 0, offset_ = 0;
  bool ended_ = false;
};

// A line or record longer than this is refused: it is held in memory several times while it is parsed.
inline constexpr size_t kMaxRecordBytes = size_t{256} << 20;

}  // namespace pmetal::formats
