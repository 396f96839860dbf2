// Changing files of rows: convert, merge, sample, split.
#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/rng.h"
#include "data/loader.h"
#include "data/tools/tools.h"
#include "formats/json.h"

namespace pmetal::data {
namespace {

using Json = nlohmann::ordered_json;

// The row as JSON; where it holds Python's NaN or Infinity, row.json gets null in their place.
Json parse_row(Row& row) {
  Json json = Json::parse(row.json, nullptr, false);
  if (json.is_discarded()) {
    json = formats::parse_json(row.json, row.where());  // or an error that says where
    row.json = formats::dump_json(json, -1, formats::NonFinite::kNull);
  }
  if (!json.is_object()) fail(ErrorCode::kInvalidInput, "{}: not a JSON object", row.where());
  return json;
}

Json rename_columns(const Json& row, const std::vector<std::pair<std::string, std::string>>& renamed,
                    const Row& source) {
  for (const auto& [to, from] : renamed)
    if (!row.contains(from)) {
      std::string columns;
      for (const auto& [key, value] : row.items()) columns += (columns.empty() ? "" : ", ") + key;
      fail(ErrorCode::kInvalidInput, "{}: no column \"{}\" to rename to \"{}\"; the columns are {}", source.where(),
           from, to, columns);
    }
  Json out = Json::object();
  for (const auto& item : row.items()) {
    const auto hit =
        std::find_if(renamed.begin(), renamed.end(), [&](const auto& r) { return r.second == item.key(); });
    out[hit == renamed.end() ? item.key() : hit->first] = item.value();
  }
  return out;
}

// the record as a list of messages, whatever it was
Json messages_of(const Record& record) {
  if (record.is_chat()) return Json::parse(record.messages);
  if (record.prompt.empty() && record.completion.empty())
    fail(ErrorCode::kInvalidInput, "{}: a {} record has no turns to convert", record.where, name_of(record.format));
  return Json::array(
      {{{"role", "user"}, {"content", record.prompt}}, {{"role", "assistant"}, {"content", record.completion}}});
}

std::string content_text(const Json& message, const Record& record) {
  const auto it = message.find("content");
  if (it == message.end() || !it->is_string())
    fail(ErrorCode::kInvalidInput, "{}: a turn's content is not plain text; this layout cannot hold it", record.where);
  return it->get<std::string>();
}

Json to_sharegpt(const Record& record) {
  Json turns = Json::array();
  for (const auto& m : messages_of(record)) {
    const std::string role = m.at("role");
    turns.push_back({{"from", role == "user"        ? "human"
                              : role == "assistant" ? "gpt"
                                                    : role},
                     {"value", content_text(m, record)}});
  }
  return {{"conversations", turns}};
}

Json to_alpaca(const Record& record) {
  std::string instruction, output;
  int n_user = 0, n_assistant = 0;
  for (const auto& m : messages_of(record)) {
    const std::string role = m.at("role");
    if (role == "user") {
      instruction += (instruction.empty() ? "" : "\n\n") + content_text(m, record);
      ++n_user;
    } else if (role == "system") {
      instruction = content_text(m, record) + (instruction.empty() ? "" : "\n\n" + instruction);
    } else if (role == "assistant") {
      output = content_text(m, record);
      ++n_assistant;
    }
  }
  if (n_user != 1 || n_assistant != 1)
    fail(ErrorCode::kInvalidInput, "{}: {} user and {} assistant turns; alpaca holds one of each", record.where, n_user,
         n_assistant);
  return {{"instruction", instruction}, {"input", ""}, {"output", output}};
}

// the columns a record of this format is made of
std::vector<std::string_view> columns_of(RecordFormat format) {
  switch (format) {
    case RecordFormat::kText: return {"text", "content"};
    case RecordFormat::kAlpaca: return {"instruction", "input", "output", "response"};
    case RecordFormat::kShareGpt: return {"conversations", "system"};
    case RecordFormat::kMessages: return {"messages"};
    case RecordFormat::kReasoning: return {"problem", "thinking", "solution", "answer"};
    case RecordFormat::kPreference: return {"prompt", "chosen", "rejected"};
    case RecordFormat::kPromptCompletion: return {"prompt", "completion", "response"};
    case RecordFormat::kQuestionAnswer: return {"question", "prompt", "answer"};
    case RecordFormat::kInputOutput: return {"input", "output"};
    case RecordFormat::kTokens: return {"input_ids", "labels"};
  }
  return {};
}

// the record in another layout; columns that are not part of it stay
Json converted(const Json& row, const Record& record, Layout layout) {
  Json out = layout == Layout::kShareGpt ? to_sharegpt(record) : to_alpaca(record);
  const auto used = columns_of(record.format);
  for (const auto& [key, value] : row.items())
    if (std::find(used.begin(), used.end(), key) == used.end() && !out.contains(key)) out[key] = value;
  return out;
}

void write_all(RowWriter& writer, std::vector<std::string>& rows, bool shuffle, uint64_t seed) {
  for (int64_t i : shuffled_order(static_cast<int64_t>(rows.size()), seed, 0, 0, shuffle))
    writer.write(rows[static_cast<size_t>(i)]);
}

}  // namespace

std::vector<std::pair<std::string, std::string>> parse_renames(const std::string& text) {
  std::vector<std::pair<std::string, std::string>> out;
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string item = text.substr(at, comma - at);
    const size_t equals = item.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == item.size())
      fail(ErrorCode::kUsage, "--columns: \"{}\" is not new=old", item);
    out.emplace_back(item.substr(0, equals), item.substr(equals + 1));
    at = comma + 1;
  }
  return out;
}

FileCounts convert(const ConvertOptions& options) {
  FileCounts counts;
  const auto source = open_source(options.input, options.split);
  auto writer = RowWriter::open(options.output, options.format);
  RecordParser parser;
  std::vector<std::string> held;  // shuffling needs all rows
  Row row;
  while (source->next(row)) {
    ++counts.read;
    if (!options.renamed.empty() || options.layout != Layout::kKeep) {
      const Json renamed = rename_columns(parse_row(row), options.renamed, row);
      row.json = renamed.dump();
      if (options.layout != Layout::kKeep) row.json = converted(renamed, parser.parse(row), options.layout).dump();
    } else {
      parse_row(row);  // what is written must be JSON
    }
    ++counts.written;
    if (options.shuffle)
      held.push_back(std::move(row.json));
    else
      writer->write(row.json);
  }
  write_all(*writer, held, true, options.seed);
  writer->finish();
  counts.outputs = {{options.output, counts.written}};
  return counts;
}

FileCounts merge(const MergeOptions& options) {
  if (options.inputs.empty()) fail(ErrorCode::kUsage, "nothing to merge: name the inputs");
  if (!options.weights.empty() && options.weights.size() != options.inputs.size())
    fail(ErrorCode::kUsage, "{} weights for {} inputs", options.weights.size(), options.inputs.size());
  double sum = 0;
  for (double w : options.weights) {
    if (!(w > 0)) fail(ErrorCode::kUsage, "a weight is {}; weights must be above 0", w);
    sum += w;
  }
  FileCounts counts;
  auto writer = RowWriter::open(options.output, file_format_of(options.output));
  std::vector<std::unique_ptr<Source>> sources;
  for (const auto& input : options.inputs) sources.push_back(open_source(input));
  std::vector<std::string> held;
  const auto put = [&](Row& row) {
    parse_row(row);
    ++counts.written;
    if (options.shuffle)
      held.push_back(std::move(row.json));
    else
      writer->write(row.json);
  };
  Row row;
  if (options.weights.empty() && !options.interleave) {
    for (auto& source : sources)
      while (source->next(row)) put(row);
  } else if (options.weights.empty()) {
    for (bool any = true; any;) {
      any = false;
      for (auto& source : sources)
        if (source->next(row)) {
          put(row);
          any = true;
        }
    }
  } else {
    std::vector<int64_t> taken(sources.size(), 0);
    for (;;) {
      size_t best = 0;
      double behind = -1e300;
      for (size_t k = 0; k < sources.size(); ++k) {
        const double d =
            static_cast<double>(counts.written + 1) * options.weights[k] / sum - static_cast<double>(taken[k]);
        if (d > behind) {
          behind = d;
          best = k;
        }
      }
      if (!sources[best]->next(row)) break;
      ++taken[best];
      put(row);
    }
  }
  counts.read = counts.written;
  write_all(*writer, held, true, options.seed);
  writer->finish();
  counts.outputs = {{options.output, counts.written}};
  return counts;
}

FileCounts sample(const SampleOptions& options) {
  if (options.n < 1) fail(ErrorCode::kUsage, "the sample size is {}; it must be at least 1", options.n);
  FileCounts counts;
  const auto source = open_source(options.input);
  PhiloxStream random(options.seed, RngPurpose::kShuffle);
  std::vector<std::pair<int64_t, std::string>> kept;  // algorithm R
  Row row;
  while (source->next(row)) {
    const int64_t at = counts.read++;
    parse_row(row);
    if (at < options.n) {
      kept.emplace_back(at, std::move(row.json));
    } else if (const auto slot = random.below(static_cast<uint64_t>(at) + 1); slot < static_cast<uint64_t>(options.n)) {
      kept[slot] = {at, std::move(row.json)};
    }
  }
  std::sort(kept.begin(), kept.end());
  auto writer = RowWriter::open(options.output, file_format_of(options.output));
  for (const auto& [at, json] : kept) writer->write(json);
  writer->finish();
  counts.written = static_cast<int64_t>(kept.size());
  counts.outputs = {{options.output, counts.written}};
  return counts;
}

FileCounts split(const SplitOptions& options) {
  const auto is_ratio = [](double r) { return r >= 0 && r < 1; };
  if (!is_ratio(options.val_ratio) || !is_ratio(options.test_ratio) || options.val_ratio + options.test_ratio >= 1)
    fail(ErrorCode::kUsage, "validation {} and test {} must be at least 0 and leave something to train on",
         options.val_ratio, options.test_ratio);
  // First pass: which group each row is in. Then each group is permuted and cut by the ratios.
  std::map<std::string, std::vector<int64_t>> groups;
  FileCounts counts;
  Row row;
  for (const auto source = open_source(options.input); source->next(row); ++counts.read) {
    std::string group;
    const Json json = parse_row(row);
    if (!options.stratify.empty()) {
      if (!json.contains(options.stratify))
        fail(ErrorCode::kInvalidInput, "{}: no column \"{}\" to stratify by", row.where(), options.stratify);
      group = json.at(options.stratify).dump();
    }
    groups[group].push_back(counts.read);
  }
  if (counts.read == 0) fail(ErrorCode::kInvalidInput, "{}: there are no rows to split", options.input.string());
  std::vector<uint8_t> part(static_cast<size_t>(counts.read), 0);
  uint64_t number = 0;
  for (const auto& [name, rows] : groups) {
    const auto n = static_cast<double>(rows.size());
    const auto n_val = std::llround(n * options.val_ratio), n_test = std::llround(n * options.test_ratio);
    const auto order = shuffled_order(static_cast<int64_t>(rows.size()), options.seed, 0, number++, true);
    for (int64_t i = 0; i < n_val + n_test; ++i)
      part[static_cast<size_t>(rows[static_cast<size_t>(order[static_cast<size_t>(i)])])] = i < n_val ? 1 : 2;
  }
  static constexpr const char* kNames[] = {"train.jsonl", "validation.jsonl", "test.jsonl"};
  const bool is_wanted[] = {true, options.val_ratio > 0, options.test_ratio > 0};
  std::unique_ptr<RowWriter> writers[3];
  int64_t written[3] = {};
  for (int p = 0; p < 3; ++p)
    if (is_wanted[p]) writers[p] = RowWriter::open(options.output / kNames[p], FileFormat::kJsonl);
  int64_t at = 0;
  for (const auto source = open_source(options.input); source->next(row); ++at) {
    const auto p = part.at(static_cast<size_t>(at));
    parse_row(row);
    writers[p]->write(row.json);
    ++written[p];
  }
  for (int p = 0; p < 3; ++p) {
    if (!is_wanted[p]) continue;
    writers[p]->finish();
    counts.outputs.emplace_back(options.output / kNames[p], written[p]);
    counts.written += written[p];
  }
  return counts;
}

}  // namespace pmetal::data
