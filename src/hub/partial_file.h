// A download under way: the data so far in `<etag>.pmetal.incomplete`, in its final length, and beside it
// `<etag>.pmetal.progress`, which says how much of each piece is there (a line per report; the last one of a piece
// counts). Hugging Face's own tools name theirs `<etag>.incomplete` and fill them front to back; ours has another name,
// so that neither takes the other's for what it is not.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace pmetal::hub {

class PartialFile {
 public:
  // Goes on with what is there when it belongs to a file of this size cut into these pieces; else begins anew.
  // `blob` is the path of the finished file.
  PartialFile(const fs::path& blob, int64_t size, int64_t piece_bytes);
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  // bytes that an earlier run left for a file of this size
  static int64_t bytes_there(const fs::path& blob, int64_t size, int64_t piece_bytes);

  int64_t size() const { return size_; }
  int64_t pieces() const { return static_cast<int64_t>(done_.size()); }
  int64_t begin(int64_t piece) const { return piece * piece_bytes_; }
  int64_t length(int64_t piece) const;
  int64_t done(int64_t piece) const { return done_[static_cast<size_t>(piece)]; }  // from its begin
  int64_t bytes_done() const;
  bool is_whole() const { return bytes_done() == size_; }

  // Pieces may be written by different threads, each by one at a time. write() continues at begin + done.
  void write(int64_t piece, std::string_view bytes);
  void note(int64_t piece);  // puts done(piece) on record
  void clear();              // nothing is there any more
  // for a front-to-back transfer over all pieces, after clear(); `at` grows from 0
  void write_at(int64_t at, std::string_view bytes);
  void set_whole();

  const fs::path& path() const { return data_path_; }
  void take_name(const fs::path& blob);  // synced, renamed, record removed

 private:
  void write_bytes(int64_t at, std::string_view bytes);
  void start_record();

  fs::path data_path_, record_path_;
  int64_t size_, piece_bytes_;
  std::vector<int64_t> done_;
  struct Fd {
    int value = -1;
    ~Fd();
  } data_, record_;
  std::mutex mutex_;  // of the record
};

}  // namespace pmetal::hub
