// Looking at a dataset: analyze, validate, preview.
#include <algorithm>
#include <numeric>
#include <unordered_set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/packing.h"
#include "data/tools/tools.h"

namespace pmetal::data {
namespace {

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

int64_t code_points(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
}

void count_turns(const Record& record, std::map<std::string, int64_t>& turns) {
  if (!record.is_chat()) return;
  for (const auto& m : nlohmann::json::parse(record.messages)) ++turns[m.at("role").get<std::string>()];
}

// the same builder without a length limit
std::unique_ptr<const ExampleBuilder> unlimited(const ExampleBuilder* builder) {
  if (!builder) return nullptr;
  ExampleOptions options = builder->options();
  options.max_length = 0;
  return std::unique_ptr<const ExampleBuilder>(new ExampleBuilder(builder->with(options)));
}

// ids and labels; a preference gives its chosen side
Example measure(const ExampleBuilder& builder, const Record& record) {
  if (record.format == RecordFormat::kTokens)
    return {record.input_ids, record.labels.empty() ? record.input_ids : record.labels};
  if (record.format == RecordFormat::kPreference) {
    auto pair = builder.build_preference(record);
    return pair ? pair->chosen : Example{};
  }
  auto example = builder.build(record);
  return example ? std::move(*example) : Example{};
}

// messages about a row begin with its place, which a RowProblem holds apart
std::string without_place(std::string message, const Row& row) {
  const std::string place = row.where() + ": ";
  return message.starts_with(place) ? message.substr(place.size()) : message;
}

}  // namespace

std::string content_of(const Record& record) {
  if (record.is_chat()) return record.messages + record.chosen + record.rejected;
  if (record.format == RecordFormat::kTokens) {
    std::string out;
    for (int32_t id : record.input_ids) out += std::to_string(id) + " ";
    return out;
  }
  return record.text + record.prompt + record.completion + record.chosen + record.rejected;
}

LengthStatistics length_statistics(const std::vector<int64_t>& lengths, int bins) {
  LengthStatistics s;
  s.count = static_cast<int64_t>(lengths.size());
  if (lengths.empty()) return s;
  s.total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  s.mean = static_cast<double>(s.total) / static_cast<double>(s.count);
  const auto [low, high] = std::minmax_element(lengths.begin(), lengths.end());
  s.shortest = *low;
  s.longest = *high;
  s.median = percentile(lengths, 0.5);
  s.p95 = percentile(lengths, 0.95);
  s.p99 = percentile(lengths, 0.99);
  const int64_t width = (s.longest - s.shortest) / std::max(bins, 1) + 1;
  for (int64_t at = s.shortest; at <= s.longest; at += width) s.histogram.push_back({at, at + width, 0});
  for (int64_t l : lengths) ++s.histogram[static_cast<size_t>((l - s.shortest) / width)].count;
  return s;
}

AnalyzeResult analyze(const AnalyzeOptions& options) {
  constexpr size_t kMaxProblems = 20;
  AnalyzeResult result;
  const auto files = resolve_files(options.path, options.split);
  for (const auto& f : files) result.files.push_back(f.string());
  const auto source = open_files(files);
  RecordParser parser(options.columns);
  std::unordered_set<uint64_t> seen;
  std::vector<int64_t> lengths;
  const auto builder = unlimited(options.builder);
  result.is_tokens = options.builder != nullptr;
  Row row;
  while (source->next(row)) {
    ++result.rows;
    try {
      for (const auto& c : parser.columns(row)) ++result.columns[c];
      const Record record = parser.parse(row);
      ++result.formats[std::string(name_of(record.format))];
      count_turns(record, result.turns_by_role);
      const std::string content = content_of(record);
      if (!seen.insert(fnv1a(content)).second) ++result.duplicates;
      if (builder) {
        const Example example = measure(*builder, record);
        if (example.n_learned() == 0) ++result.nothing_learned;
        result.learned_tokens += example.n_learned();
        if (example.length() > 0) lengths.push_back(example.length());
        if (example.length() > options.max_length) ++result.truncated;
      } else {
        lengths.push_back(code_points(content));
      }
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kInvalidInput) throw;
      ++result.malformed;
      if (result.problems.size() < kMaxProblems) result.problems.push_back({row.where(), without_place(e.what(), row)});
    }
  }
  result.lengths = length_statistics(lengths);
  if (options.builder && !lengths.empty()) {
    result.suggested_max_length = suggested_max_length(lengths);
    result.packing_length = packing_length(lengths, 0);
    result.packing_fill = fill_ratio(lengths, pack_best_fit(lengths, result.packing_length), result.packing_length);
  }
  return result;
}

ValidateResult validate(const AnalyzeOptions& options) {
  constexpr size_t kMaxProblems = 100;
  ValidateResult result;
  const auto source = open_source(options.path, options.split);
  RecordParser parser(options.columns);
  const auto builder = unlimited(options.builder);
  Row row;
  const auto report = [&](const std::string& message) {
    if (result.problems.size() < kMaxProblems) result.problems.push_back({row.where(), message});
  };
  while (source->next(row)) {
    ++result.rows;
    try {
      const Record record = parser.parse(row);
      bool is_fine = true;
      const bool is_pair = !record.prompt.empty() && !record.is_chat() && record.format != RecordFormat::kPreference;
      if (is_pair && record.completion.empty()) {
        ++result.empty_response;
        is_fine = false;
        report("the response is empty");
      }
      if (builder) {
        const Example example = measure(*builder, record);
        if (example.n_learned() == 0) {
          ++result.nothing_learned;
          is_fine = false;
          report("nothing to learn from: no assistant turn or no text");
        }
        if (example.length() > options.max_length) {
          ++result.too_long;
          is_fine = false;
          report(fmt::format("{} tokens; the limit is {}", example.length(), options.max_length));
        }
      }
      result.valid += is_fine;
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kInvalidInput) throw;
      ++result.malformed;
      report(without_place(e.what(), row));
    }
  }
  return result;
}

std::vector<PreviewRow> preview(const AnalyzeOptions& options, int64_t n) {
  PMETAL_ASSERT(options.builder != nullptr, "preview needs a builder, if only one without a tokenizer");
  const auto source = open_source(options.path, options.split);
  RecordParser parser(options.columns);
  std::vector<PreviewRow> rows;
  Row row;
  while (static_cast<int64_t>(rows.size()) < n && source->next(row)) {
    const Record record = parser.parse(row);
    const auto rendered = options.builder->render(record);
    PreviewRow out{row.where(), rendered.text, record.format, rendered.learned, {}};
    if (options.builder->encoder().encode)
      for (const Span& s : options.builder->encoder().encode(rendered.text, false).offsets)
        if (s.end > s.begin) out.token_borders.push_back(s.begin);
    rows.push_back(std::move(out));
  }
  return rows;
}

}  // namespace pmetal::data
