#include "data/source.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <functional>

#include "base/error.h"
#include "base/file.h"
#include "formats/compression.h"
#include "formats/csv.h"
#include "formats/json_stream.h"
#include "formats/parquet.h"
#include "formats/text.h"

namespace pmetal::data {
namespace {

using formats::append_json_string;
using formats::LineReader;

std::shared_ptr<const std::string> shared_name(const fs::path& path) {
  return std::make_shared<const std::string>(path.string());
}

class JsonlSource final : public Source {
 public:
  explicit JsonlSource(const fs::path& path)
      : file_(shared_name(path)), lines_(formats::open_input(path), path.string()) {}
  bool next(Row& row) override {
    std::string_view line;
    while (lines_.next(line)) {
      if (lines_.line() == 1 && line.starts_with("\xef\xbb\xbf")) line.remove_prefix(3);
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      row.json.assign(line);
      row.file = file_;
      row.line = lines_.line();
      return true;
    }
    return false;
  }
  int64_t skip(int64_t n) override {
    std::string_view line;
    int64_t done = 0;
    while (done < n && lines_.next(line))
      if (line.find_first_not_of(" \t\r") != std::string_view::npos) ++done;
    return done;
  }

 private:
  std::shared_ptr<const std::string> file_;
  LineReader lines_;
};

class JsonSource final : public Source {
 public:
  explicit JsonSource(const fs::path& path)
      : file_(shared_name(path)), splitter_(formats::open_input(path), path.string()) {}
  bool next(Row& row) override {
    if (!splitter_.next(row.json)) return false;
    row.file = file_;
    row.line = splitter_.line();
    return true;
  }

 private:
  std::shared_ptr<const std::string> file_;
  formats::JsonSplitter splitter_;
};

class CsvSource final : public Source {
 public:
  CsvSource(const fs::path& path, char separator)
      : file_(shared_name(path)), reader_(formats::open_input(path), path.string(), separator) {
    if (!reader_.next(columns_))
      fail(ErrorCode::kInvalidInput, "{}: the file is empty; the first line must name the columns", *file_);
    for (size_t i = 0; i < columns_.size(); ++i)
      if (std::find(columns_.begin(), columns_.begin() + static_cast<std::ptrdiff_t>(i), columns_[i]) !=
          columns_.begin() + static_cast<std::ptrdiff_t>(i))
        fail(ErrorCode::kInvalidInput, "{}:{}: the header names the column \"{}\" twice", *file_, reader_.line(),
             columns_[i]);
  }
  bool next(Row& row) override {
    if (!reader_.next(fields_)) return false;
    if (fields_.size() != columns_.size())
      fail(ErrorCode::kInvalidInput, "{}:{}: {} fields where the header names {} columns", *file_, reader_.line(),
           fields_.size(), columns_.size());
    row.file = file_;
    row.line = reader_.line();
    row.json = "{";
    for (size_t i = 0; i < fields_.size(); ++i) {
      if (i) row.json += ',';
      const auto what = [&] { return row.where() + ": field \"" + columns_[i] + "\""; };
      append_json_string(row.json, columns_[i], *file_);
      row.json += ':';
      append_json_string(row.json, fields_[i], formats::is_valid_utf8(fields_[i]) ? std::string() : what());
    }
    row.json += '}';
    return true;
  }

 private:
  std::shared_ptr<const std::string> file_;
  formats::CsvReader reader_;
  std::vector<std::string> columns_, fields_;
};

// Documents end at a line that is exactly the separator; the line end before it belongs to the separator.
class TextSource final : public Source {
 public:
  TextSource(const fs::path& path, std::string separator)
      : file_(shared_name(path)), lines_(formats::open_input(path), path.string()), separator_(std::move(separator)) {}
  bool next(Row& row) override {
    while (!ended_) {
      std::string document;
      const int64_t begin = lines_.line() + 1;
      bool any = false;
      std::string_view line;
      for (;;) {
        if (!lines_.next(line)) {
          ended_ = true;
          break;
        }
        if (line == separator_) break;
        if (any) document += '\n';
        document += line;
        any = true;
        if (document.size() > formats::kMaxRecordBytes)
          fail(ErrorCode::kInvalidInput, "{}:{}: the document is longer than {} bytes; separate documents by a line {}",
               *file_, begin, formats::kMaxRecordBytes, separator_);
      }
      if (document.find_first_not_of(" \t\r\n") == std::string::npos) continue;
      row.file = file_;
      row.line = begin;
      row.json = "{\"text\":";
      append_json_string(row.json, document, row.where());
      row.json += '}';
      return true;
    }
    return false;
  }

 private:
  std::shared_ptr<const std::string> file_;
  LineReader lines_;
  std::string separator_;
  bool ended_ = false;
};

class ParquetSource final : public Source {
 public:
  explicit ParquetSource(const fs::path& path) : file_(shared_name(path)), reader_(path) {}
  bool next(Row& row) override {
    if (!reader_.next(row.json)) return false;
    row.file = file_;
    row.line = reader_.row();
    return true;
  }
  int64_t skip(int64_t n) override { return reader_.skip(n); }

 private:
  std::shared_ptr<const std::string> file_;
  formats::ParquetReader reader_;
};

class FilesSource final : public Source {
 public:
  using Open = std::function<std::unique_ptr<Source>(const fs::path&)>;
  FilesSource(std::vector<fs::path> files, Open open) : files_(std::move(files)), open_(std::move(open)) {}
  bool next(Row& row) override {
    for (;;) {
      if (!current_) {
        if (index_ == files_.size()) return false;
        current_ = open_(files_[index_++]);
      }
      if (current_->next(row)) return true;
      current_.reset();
    }
  }
  int64_t skip(int64_t n) override {
    int64_t done = 0;
    while (done < n) {
      if (!current_) {
        if (index_ == files_.size()) break;
        current_ = open_(files_[index_++]);
      }
      done += current_->skip(n - done);
      if (done < n) current_.reset();
    }
    return done;
  }

 private:
  std::vector<fs::path> files_;
  Open open_;
  size_t index_ = 0;
  std::unique_ptr<Source> current_;
};

// "train-00000-of-00002.jsonl.gz" -> {"train-00000-of-00002", "jsonl"}
struct NameParts {
  std::string stem, extension;
};
NameParts name_parts(const fs::path& path) {
  fs::path name = path.filename();
  const std::string packed = name.extension().string();
  if (packed == ".gz" || packed == ".zst") name = name.stem();
  std::string extension = name.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return {name.stem().string(), extension.empty() ? "" : extension.substr(1)};
}

enum class Kind { kJsonl, kJson, kParquet, kCsv, kTsv, kText, kArrow, kOther };
Kind kind_of(const fs::path& path) {
  const std::string e = name_parts(path).extension;
  if (e == "jsonl" || e == "ndjson") return Kind::kJsonl;
  if (e == "json") return Kind::kJson;
  if (e == "parquet") return Kind::kParquet;
  if (e == "csv") return Kind::kCsv;
  if (e == "tsv") return Kind::kTsv;
  if (e == "txt" || e == "text" || e == "md") return Kind::kText;
  if (e == "arrow") return Kind::kArrow;
  return Kind::kOther;
}

std::unique_ptr<Source> open_one(const fs::path& path, const std::string& separator) {
  switch (kind_of(path)) {
    case Kind::kJsonl: return std::make_unique<JsonlSource>(path);
    case Kind::kJson: return std::make_unique<JsonSource>(path);
    case Kind::kParquet: return std::make_unique<ParquetSource>(path);
    case Kind::kCsv: return std::make_unique<CsvSource>(path, formats::CsvReader::kTold);
    case Kind::kTsv: return std::make_unique<CsvSource>(path, '\t');
    case Kind::kText: return std::make_unique<TextSource>(path, separator);
    case Kind::kArrow:
      fail(ErrorCode::kUnsupported,
           "{}: Arrow files are not read; save the dataset as Parquet (to_parquet) or JSON Lines", path.string());
    case Kind::kOther: break;
  }
  fail(ErrorCode::kInvalidInput,
       "{}: cannot tell the kind of file from its name; use .jsonl, .json, .csv, .tsv, .parquet or .txt (also with .gz "
       "or .zst)",
       path.string());
}

std::vector<std::string> stems_of(const std::string& split) {
  if (split == "train") return {"train", "data", "dataset"};
  if (split == "validation" || split == "valid" || split == "val" || split == "dev" || split == "eval")
    return {"validation", "valid", "val", "dev", "eval"};
  return {split};
}

bool matches_stem(const std::string& name, const std::string& stem) {
  return name == stem || (name.starts_with(stem) && std::string("-_.").find(name[stem.size()]) != std::string::npos);
}

constexpr std::array kFolderOrder = {Kind::kJsonl, Kind::kJson, Kind::kParquet, Kind::kCsv,
                                     Kind::kTsv,   Kind::kText, Kind::kArrow};
// files that lie beside data in model and dataset folders and are not data
bool is_sidecar(const fs::path& path) {
  static constexpr std::array<std::string_view, 6> kNames = {"dataset_info.json", "dataset_infos.json", "state.json",
                                                             "metadata.json",     "README.md",          "index.json"};
  return std::find(kNames.begin(), kNames.end(), path.filename().string()) != kNames.end();
}

std::vector<fs::path> shards_in(const fs::path& folder, const std::vector<std::string>& stems, bool any_stem) {
  std::vector<fs::path> files;
  if (!fs::is_directory(folder)) return files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file() && !is_sidecar(entry.path()) && kind_of(entry.path()) != Kind::kOther)
      files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  const auto pick = [&](const std::function<bool(const fs::path&)>& wanted) {
    std::vector<fs::path> found;
    for (Kind kind : kFolderOrder) {
      for (const auto& f : files)
        if (kind_of(f) == kind && wanted(f)) found.push_back(f);
      if (!found.empty()) break;
    }
    return found;
  };
  for (const auto& stem : stems) {
    auto found = pick([&](const fs::path& f) { return matches_stem(name_parts(f).stem, stem); });
    if (!found.empty()) return found;
  }
  return any_stem ? pick([](const fs::path&) { return true; }) : std::vector<fs::path>{};
}

}  // namespace

std::string Row::where() const { return fmt::format("{}:{}", file ? *file : std::string("data"), line); }

int64_t Source::skip(int64_t n) {
  Row row;
  int64_t done = 0;
  while (done < n && next(row)) ++done;
  return done;
}

std::vector<fs::path> resolve_files(const fs::path& path, const std::string& split) {
  if (!fs::exists(path)) fail(ErrorCode::kNotFound, "{}: no such file or folder", path.string());
  if (!fs::is_directory(path)) {
    require_regular_file(path);
    return {path};
  }
  const auto stems = stems_of(split);
  const bool any = split == "train";
  for (const fs::path& folder : {path, path / "data", path / split}) {
    auto files = shards_in(folder, stems, any || folder.filename() == split);
    if (!files.empty()) return files;
  }
  fail(ErrorCode::kNotFound,
       "{}: no file of the split \"{}\" (looked for {}* with .jsonl, .json, .parquet, .csv, .tsv, "
       ".txt, also .gz and .zst)",
       path.string(), split, stems.front());
}

std::unique_ptr<Source> open_source(const fs::path& path, const std::string& split) {
  return open_files(resolve_files(path, split));
}

std::unique_ptr<Source> open_files(std::vector<fs::path> files, const std::string& document_separator) {
  for (const auto& f : files) require_regular_file(f);
  return std::make_unique<FilesSource>(
      std::move(files), [document_separator](const fs::path& path) { return open_one(path, document_separator); });
}

std::string fingerprint(const std::vector<fs::path>& files) {
  constexpr int64_t kEnds = int64_t{1} << 20;
  uint64_t hash = 0xcbf29ce484222325u;
  const auto mix = [&](std::string_view bytes) {
    for (char c : bytes) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  };
  for (const auto& f : files) {
    std::ifstream in(f, std::ios::binary);
    const auto size = static_cast<int64_t>(fs::file_size(f));
    mix(f.filename().string());
    mix(std::to_string(size));
    std::string bytes(static_cast<size_t>(std::min(size, kEnds)), '\0');
    in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    mix(bytes);
    in.seekg(size - static_cast<int64_t>(bytes.size()));
    in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!in) fail(ErrorCode::kIo, "{}: cannot read", f.string());
    mix(bytes);
  }
  return fmt::format("{:016x}", hash);
}

}  // namespace pmetal::data
