// Rows to JSON Lines, a JSON array, CSV or Parquet, through one interface.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/tools/tools.h"
#include "formats/csv.h"
#include "formats/parquet.h"

namespace pmetal::data {
namespace {

using Json = nlohmann::ordered_json;

class JsonlWriter final : public RowWriter {
 public:
  explicit JsonlWriter(const fs::path& path) : file_(path) {}
  void write(const std::string& json) override {
    file_.write(json);
    file_.write("\n");
  }
  void finish() override { file_.commit(); }

 private:
  AtomicFile file_;
};

class JsonArrayWriter final : public RowWriter {
 public:
  explicit JsonArrayWriter(const fs::path& path) : file_(path) {}
  void write(const std::string& json) override {
    file_.write(first_ ? "[\n" : ",\n");
    file_.write(json);
    first_ = false;
  }
  void finish() override {
    file_.write(first_ ? "[]\n" : "\n]\n");
    file_.commit();
  }

 private:
  AtomicFile file_;
  bool first_ = true;
};

class CsvWriter final : public RowWriter {
 public:
  explicit CsvWriter(const fs::path& path) : path_(path), file_(path) {}
  void write(const std::string& text) override {
    const Json row = Json::parse(text);
    if (columns_.empty()) {
      for (const auto& [key, value] : row.items()) columns_.push_back(key);
      std::string header;
      for (const auto& c : columns_) header += (header.empty() ? "" : ",") + formats::csv_field(c);
      file_.write(header + "\n");
    }
    for (const auto& [key, value] : row.items())
      if (std::find(columns_.begin(), columns_.end(), key) == columns_.end())
        fail(ErrorCode::kInvalidInput,
             "{}: a later row has the column \"{}\" that the first has not; CSV needs the same columns in every row",
             path_.string(), key);
    std::string line;
    for (size_t i = 0; i < columns_.size(); ++i) {
      const auto it = row.find(columns_[i]);
      const bool is_null = it == row.end() || it->is_null();
      if (i) line += ',';
      if (!is_null) line += formats::csv_field(it->is_string() ? it->get_ref<const std::string&>() : it->dump());
    }
    file_.write(line + "\n");
  }
  void finish() override { file_.commit(); }

 private:
  fs::path path_;
  AtomicFile file_;
  std::vector<std::string> columns_;
};

class ParquetRowWriter final : public RowWriter {
 public:
  explicit ParquetRowWriter(const fs::path& path)
      : writer_(path), spool_path_(path.string() + ".rows.jsonl"), spool_(spool_path_) {}
  ~ParquetRowWriter() override {
    std::error_code ignored;
    fs::remove(spool_path_, ignored);
  }
  void write(const std::string& json) override {
    writer_.observe(json);
    spool_.write(json);
    spool_.write("\n");
  }
  void finish() override {
    spool_.commit();
    const auto rows = open_files({spool_path_});
    Row row;
    while (rows->next(row)) writer_.write(row.json);
    writer_.finish();
  }

 private:
  formats::ParquetWriter writer_;
  fs::path spool_path_;
  AtomicFile spool_;
};

}  // namespace

FileFormat file_format_of(const fs::path& path) {
  const auto e = path.extension();
  if (e == ".jsonl") return FileFormat::kJsonl;
  if (e == ".json") return FileFormat::kJson;
  if (e == ".csv") return FileFormat::kCsv;
  if (e == ".parquet") return FileFormat::kParquet;
  fail(ErrorCode::kUsage, "{}: the output must end in .jsonl, .json, .csv or .parquet", path.string());
}

std::unique_ptr<RowWriter> RowWriter::open(const fs::path& path, FileFormat format) {
  if (path.has_parent_path()) fs::create_directories(path.parent_path());
  switch (format) {
    case FileFormat::kJsonl: return std::make_unique<JsonlWriter>(path);
    case FileFormat::kJson: return std::make_unique<JsonArrayWriter>(path);
    case FileFormat::kCsv: return std::make_unique<CsvWriter>(path);
    case FileFormat::kParquet: return std::make_unique<ParquetRowWriter>(path);
  }
  PMETAL_ASSERT(false, "format {}", static_cast<int>(format));
  return nullptr;
}

}  // namespace pmetal::data
