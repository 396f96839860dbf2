// What `pmetal dataset` does, as functions that return structures and never print. All of them read any source that
// source.h reads, stream where the task allows, and are deterministic in their seed.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/example.h"
#include "data/record.h"
#include "data/source.h"

namespace pmetal::data {

// ---- output files -------------------------------------------------------------------------------------------------
enum class FileFormat : uint8_t { kJsonl, kJson, kCsv, kParquet };
// by extension; Error(kUsage) naming the accepted ones
FileFormat file_format_of(const fs::path& path);

// Rows to a file of any format; nothing is left behind without finish(). CSV takes the columns of the first row, nested
// values as JSON text; Parquet rows are spooled beside the file until the schema is known.
class RowWriter {
 public:
  static std::unique_ptr<RowWriter> open(const fs::path& path, FileFormat format);
  virtual ~RowWriter() = default;
  virtual void write(const std::string& json) = 0;
  virtual void finish() = 0;
};

// ---- analyze ------------------------------------------------------------------------------------------------------
struct LengthBin {
  int64_t low = 0, high = 0, count = 0;  // low <= length < high
};
struct LengthStatistics {
  int64_t count = 0, total = 0, shortest = 0, longest = 0, median = 0, p95 = 0, p99 = 0;
  double mean = 0;
  std::vector<LengthBin> histogram;  // equal widths, at most `bins`
};
LengthStatistics length_statistics(const std::vector<int64_t>& lengths, int bins = 20);

struct RowProblem {
  std::string where, message;
};
struct AnalyzeOptions {
  fs::path path;
  std::string split = "train";
  ColumnFlags columns;
  const ExampleBuilder* builder = nullptr;  // without one, lengths are characters of text
  int64_t max_length = 2048;
};
struct AnalyzeResult {
  std::vector<std::string> files;
  int64_t rows = 0, truncated = 0, nothing_learned = 0, duplicates = 0, malformed = 0;
  std::map<std::string, int64_t> formats;        // records of each format
  std::map<std::string, int64_t> columns;        // rows that have the column
  std::map<std::string, int64_t> turns_by_role;  // chats
  bool is_tokens = false;                        // unit of `lengths`
  LengthStatistics lengths;
  int64_t learned_tokens = 0;
  int64_t suggested_max_length = 0, packing_length = 0;  // tokens only
  double packing_fill = 0;                               // at packing_length
  std::vector<RowProblem> problems;                      // the first twenty
};
AnalyzeResult analyze(const AnalyzeOptions& options);

// ---- validate -----------------------------------------------------------------------------------------------------
struct ValidateResult {
  int64_t rows = 0, valid = 0, malformed = 0, too_long = 0, nothing_learned = 0, empty_response = 0;
  std::vector<RowProblem> problems;  // the first hundred
  bool is_valid() const { return rows > 0 && malformed == 0; }
};
ValidateResult validate(const AnalyzeOptions& options);

// ---- preview ------------------------------------------------------------------------------------------------------
struct PreviewRow {
  std::string where, text;
  RecordFormat format = RecordFormat::kText;
  std::vector<Span> learned;           // bytes of text
  std::vector<int64_t> token_borders;  // bytes of text where a token begins; empty without a tokenizer
};
std::vector<PreviewRow> preview(const AnalyzeOptions& options, int64_t n);

// ---- convert, filter, split, merge, sample, template
// -----------------------------------------------------------------
enum class Layout : uint8_t { kKeep, kShareGpt, kAlpaca };  // --format share-gpt, alpaca change the records as well
struct ConvertOptions {
  fs::path input, output;
  std::string split = "train";
  FileFormat format = FileFormat::kJsonl;
  Layout layout = Layout::kKeep;
  std::vector<std::pair<std::string, std::string>> renamed;  // (new, old)
  bool shuffle = false;
  uint64_t seed = 42;
};
struct FileCounts {
  int64_t read = 0, written = 0;
  std::vector<std::pair<fs::path, int64_t>> outputs;  // rows of each file
  std::map<std::string, int64_t> removed;             // why rows were left out
};
FileCounts convert(const ConvertOptions& options);

struct FilterOptions {
  fs::path input, output;
  const ExampleBuilder* builder = nullptr;  // needed for token limits
  ColumnFlags columns;
  int64_t min_tokens = 0, max_tokens = 0;  // 0 = no limit
  bool dedup = false;                      // same record content, whatever other columns say
  std::string pattern;                     // regular expression over the record's text
  bool invert = false;                     // keep what does not match the pattern
  bool complete_only = false;              // a non-empty response; chats end with the assistant
};
FileCounts filter(const FilterOptions& options);

struct SplitOptions {
  fs::path input, output;  // output: a folder; train.jsonl, validation.jsonl, test.jsonl
  double val_ratio = 0.1, test_ratio = 0;
  uint64_t seed = 42;
  std::string stratify;  // column whose values keep their shares
};
FileCounts split(const SplitOptions& options);

struct MergeOptions {
  std::vector<fs::path> inputs;
  fs::path output;
  bool shuffle = false, interleave = false;
  uint64_t seed = 42;
  // Shares of the inputs, one each: rows are interleaved by them until an input runs out, so that the shares hold.
  std::vector<double> weights;
};
FileCounts merge(const MergeOptions& options);

struct SampleOptions {
  fs::path input, output;
  int64_t n = 100;
  uint64_t seed = 42;
};
FileCounts sample(const SampleOptions& options);  // without repetition, in the order of the input

struct TemplateOptions {
  fs::path input, output;
  ColumnFlags columns;
  RenderChat render;
  std::string system;        // put in front of chats that have none
  bool mask_prompt = false;  // rows {prompt, completion} around the last answer instead of {text}
};
FileCounts apply_template(const TemplateOptions& options);

struct PrepareOptions {
  fs::path input, output;  // output: a folder
  ColumnFlags columns;
  RenderChat render;
  const ExampleBuilder* builder = nullptr;  // over rendered text, for the length limit
  int64_t max_length = 2048;
  double val_ratio = 0.05;
  uint64_t seed = 42;
  bool dedup = true;
  std::vector<std::pair<std::string, std::string>> renamed;
};
// convert -> filter (dedup, length, complete) -> template -> split, leaving only the split files
FileCounts prepare(const PrepareOptions& options);

// "new=old,new2=old2" -> pairs; Error(kUsage) otherwise
std::vector<std::pair<std::string, std::string>> parse_renames(const std::string& text);

// the text a record teaches or asks, in one piece: what patterns and deduplication look at
std::string content_of(const Record& record);

}  // namespace pmetal::data
