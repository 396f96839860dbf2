// Sources: a stream of rows from whatever a person has. JSON Lines (also .gz, .zst), JSON arrays, CSV, Parquet, plain
// text (documents separated by the line `<|endoftext|>`), folders with all their shards. Constant memory (Parquet: one
// row group at a time). Which kind a file is, its name says (.jsonl .json .csv .tsv .parquet .txt .md, then .gz/.zst).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"

namespace pmetal::data {

// One record as the text of a JSON object. JSON Lines rows are passed on unread: record.h parses and names errors.
struct Row {
  std::string json;
  std::shared_ptr<const std::string> file;
  int64_t line = 0;           // line of the file where the row begins; for Parquet the row number, from 1
  std::string where() const;  // "train.jsonl:17"
};

class Source {
 public:
  virtual ~Source() = default;
  virtual bool next(Row& row) = 0;  // false at the end
  // passes over n rows, faster than reading them where the format allows; returns how many there were
  virtual int64_t skip(int64_t n);
};

// The files that a path names, in reading order: itself, or for a folder the shards of `split` by the rules of the
// surface (10.1): stems train, data, dataset, then any; jsonl, json, parquet, csv, txt. Looks into the folder, then
// its `data` folder, then one folder named like the split. Error(kNotFound) says what was looked for.
std::vector<fs::path> resolve_files(const fs::path& path, const std::string& split = "train");

std::unique_ptr<Source> open_source(const fs::path& path, const std::string& split = "train");
// the separator line of plain text files
inline constexpr std::string_view kDocumentSeparator = "<|endoftext|>";
std::unique_ptr<Source> open_files(std::vector<fs::path> files,
                                   const std::string& document_separator = std::string(kDocumentSeparator));

// Identity of the data for checkpoints: paths' file names, sizes and an FNV-1a hash of the first and last MiB of each.
std::string fingerprint(const std::vector<fs::path>& files);

}  // namespace pmetal::data
