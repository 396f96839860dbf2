// Cuts a stream of JSON into its records without building a tree: the elements of a top-level array, or values that
// follow each other (JSON Lines, pretty-printed objects). Constant memory. It finds where a record ends by strings and
// brackets; what is inside is checked by whoever parses the record.
#pragma once

#include <memory>
#include <string>

#include "formats/compression.h"

namespace pmetal::formats {

class JsonSplitter {
 public:
  JsonSplitter(std::unique_ptr<InputStream> input, std::string name);
  bool next(std::string& record);                // false at the end; errors name file and line
  int64_t line() const { return record_line_; }  // where the record begins, from 1

 private:
  int peek();
  int get();
  void skip_space();
  [[noreturn]] void bad(const std::string& what);
  std::unique_ptr<InputStream> input_;
  std::string name_, buffer_;
  size_t position_ = 0, end_ = 0;
  int64_t line_ = 1, record_line_ = 0;
  enum class Mode { kUnknown, kArray, kSequence, kDone } mode_ = Mode::kUnknown;
  bool first_ = true;
};

}  // namespace pmetal::formats
