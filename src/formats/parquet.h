// Parquet files as rows of JSON. Reader: pages are decoded one at a time per column, so memory is a few pages whatever
// the file; PLAIN, dictionary, RLE, delta and byte-stream-split encodings, data pages v1 and v2, snappy, gzip, zstd,
// lz4_raw; optional, repeated and nested fields, LIST and MAP. Writer: schema from the rows, zstd, v1 pages.
// In JSON: dates and timestamps are ISO 8601 text, decimals numbers, UUIDs text, bytes that are not UTF-8 base64 text,
// NaN and infinities null; null fields of nested structs are left out (Parquet cannot tell absent from null).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace pmetal::formats {

class ParquetReader {
 public:
  explicit ParquetReader(const fs::path& path);
  ParquetReader(std::string_view bytes, std::string name);  // bytes outlive the reader
  ~ParquetReader();
  ParquetReader(ParquetReader&&) noexcept;
  bool next(std::string& json);  // one row as an object; false at the end
  int64_t skip(int64_t n);       // whole row groups are passed over unread; returns how many rows there were
  int64_t row() const;           // number of the row last returned, from 1
  int64_t n_rows() const;
  std::vector<std::string> columns() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Rows must agree on the type of each field; integers and floats meet as floats, absent and null fields become null.
// A field that is text in one row and a list in another is Error(kInvalidInput) naming it. Objects become structs with
// the union of their fields. Rows are kept as text until finish(), `rows_per_group` make one group.
class ParquetWriter {
 public:
  explicit ParquetWriter(fs::path path, int64_t rows_per_group = 10000);
  ~ParquetWriter();
  // First pass: every row is shown, so that the schema is known. Second pass: every row is written.
  void observe(std::string_view json_row);
  void write(std::string_view json_row);
  void finish();  // footer, sync, rename

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pmetal::formats
