// CSV as in RFC 4180: fields in double quotes may hold separators, line ends and doubled quotes; "\n" and "\r\n" end
// a record; a byte-order mark is skipped. Streaming, constant memory. Where no separator is
// given, the first line tells it: a comma, or a semicolon or tab where there is no comma outside of quotes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/compression.h"

namespace pmetal::formats {

class CsvReader {
 public:
  static constexpr char kTold = '\0';  // the separator is what the first line shows
  CsvReader(std::unique_ptr<InputStream> input, std::string name, char separator = ',');
  // The fields of the next record; false at the end. Blank lines are skipped. A stray quote or an open quoted field
  // at the end of the file is Error(kInvalidInput) with file and line.
  bool next(std::vector<std::string>& fields);
  int64_t line() const { return record_line_; }  // where the record last returned begins, from 1

 private:
  int get();
  int peek();
  bool fill();
  bool fill_more();
  char separator_of_header();
  std::unique_ptr<InputStream> input_;
  std::string name_, buffer_;
  char separator_;
  size_t position_ = 0, end_ = 0;
  int64_t line_ = 1, record_line_ = 0;
};

// one field, quoted where it must be
std::string csv_field(std::string_view value, char separator = ',');

}  // namespace pmetal::formats
