// Choosing and rendering rows: filter, template, prepare.
#include <unordered_set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/tools/tools.h"
#include "formats/text.h"
#include "text/tokenizer/regex.h"

namespace pmetal::data {
namespace {

using Json = nlohmann::ordered_json;

bool is_complete(const Record& record) {
  if (record.format == RecordFormat::kText) return record.text.find_first_not_of(" \t\r\n") != std::string::npos;
  if (record.format == RecordFormat::kTokens) return !record.input_ids.empty();
  if (record.format == RecordFormat::kPreference) return record.chosen.size() > 2 && record.rejected.size() > 2;
  if (!record.is_chat()) return record.completion.find_first_not_of(" \t\r\n") != std::string::npos;
  const Json last = Json::parse(record.messages).back();
  if (last.at("role") != "assistant") return false;
  if (last.contains("tool_calls") && !last["tool_calls"].empty()) return true;
  const auto content = last.find("content");
  if (content == last.end() || content->is_null()) return false;
  return !content->is_string() ||
         content->get_ref<const std::string&>().find_first_not_of(" \t\r\n") != std::string::npos;
}

// what a pattern is held against: the plain texts of a chat, not their JSON
std::string plain_text(const Record& record) {
  if (!record.is_chat()) return content_of(record);
  std::string out;
  for (const std::string* list : {&record.messages, &record.chosen, &record.rejected}) {
    if (list->empty()) continue;
    for (const auto& m : Json::parse(*list))
      if (m.contains("content") && m["content"].is_string()) out += m["content"].get<std::string>() + "\n";
  }
  return out;
}

// puts a system message in front of a chat that has none
void add_system(Record& record, const std::string& system) {
  if (system.empty()) return;
  Json list = Json::parse(record.messages);
  if (!list.empty() && list.front().at("role") == "system") return;
  list.insert(list.begin(), Json{{"role", "system"}, {"content", system}});
  record.messages = list.dump();
  if (record.prompt_messages > 0) ++record.prompt_messages;
}

std::string text_row(std::string_view text, const std::string& where) {
  std::string out = "{\"text\":";
  formats::append_json_string(out, text, where);
  return out + "}";
}

std::string pair_row(std::string_view prompt, std::string_view completion, const std::string& where) {
  std::string out = "{\"prompt\":";
  formats::append_json_string(out, prompt, where);
  out += ",\"completion\":";
  formats::append_json_string(out, completion, where);
  return out + "}";
}

}  // namespace

FileCounts filter(const FilterOptions& options) {
  const bool has_limits = options.min_tokens > 0 || options.max_tokens > 0;
  if (has_limits && !options.builder)
    fail(ErrorCode::kUsage, "--min-tokens and --max-tokens need a tokenizer: name a model with -m");
  if (options.invert && options.pattern.empty()) fail(ErrorCode::kUsage, "--invert needs a --pattern");
  std::optional<text::Regex> pattern;
  if (!options.pattern.empty()) pattern.emplace(options.pattern, "--pattern");
  FileCounts counts;
  const auto source = open_source(options.input);
  auto writer = RowWriter::open(options.output, file_format_of(options.output));
  RecordParser parser(options.columns);
  std::unordered_set<std::string> seen;  // whole contents: a hash alone could drop a row that is not a duplicate
  // the first reason against a row, or nothing
  const auto reason = [&](const Row& row) -> const char* {
    const Record record = parser.parse(row);
    if (options.complete_only && !is_complete(record)) return "incomplete";
    if (pattern) {
      size_t begin = 0, end = 0;
      if (pattern->find(plain_text(record), 0, begin, end) == options.invert) return "pattern";
    }
    if (has_limits) {
      const auto text = options.builder->length_of(record);
      if (options.min_tokens > 0 && text < options.min_tokens) return "too short";
      if (options.max_tokens > 0 && text > options.max_tokens) return "too long";
    }
    if (options.dedup && !seen.insert(content_of(record)).second) return "duplicate";
    return nullptr;
  };
  Row row;
  while (source->next(row)) {
    ++counts.read;
    if (const char* why = reason(row)) {
      ++counts.removed[why];
      continue;
    }
    writer->write(row.json);
    ++counts.written;
  }
  writer->finish();
  counts.outputs = {{options.output, counts.written}};
  return counts;
}

FileCounts apply_template(const TemplateOptions& options) {
  FileCounts counts;
  const auto source = open_source(options.input);
  auto writer = RowWriter::open(options.output, file_format_of(options.output));
  RecordParser parser(options.columns);
  const ExampleBuilder builder({}, options.render, {});
  Row row;
  while (source->next(row)) {
    ++counts.read;
    Record record = parser.parse(row);
    if (record.is_chat()) add_system(record, options.system);
    const auto rendered = builder.render(record);
    if (options.mask_prompt) {
      if (rendered.learned.empty()) {
        ++counts.removed["no answer"];
        continue;
      }
      const auto from = static_cast<size_t>(rendered.learned.back().begin);
      writer->write(pair_row(rendered.text.substr(0, from), rendered.text.substr(from), record.where));
    } else {
      writer->write(text_row(rendered.text, record.where));
    }
    ++counts.written;
  }
  writer->finish();
  counts.outputs = {{options.output, counts.written}};
  return counts;
}

FileCounts prepare(const PrepareOptions& options) {
  fs::create_directories(options.output);
  const fs::path converted = options.output / ".converted.jsonl", filtered = options.output / ".filtered.jsonl",
                 rendered = options.output / ".rendered.jsonl";
  const auto clean = [&] {
    std::error_code ignored;
    for (const auto& f : {converted, filtered, rendered}) fs::remove(f, ignored);
  };
  try {
    ConvertOptions c;
    c.input = options.input;
    c.output = converted;
    c.renamed = options.renamed;
    FileCounts counts = convert(c);
    FilterOptions f;
    f.input = converted;
    f.output = filtered;
    f.builder = options.builder;
    f.columns = options.columns;
    f.max_tokens = options.builder ? options.max_length : 0;
    f.dedup = options.dedup;
    f.complete_only = true;
    counts.removed = filter(f).removed;
    TemplateOptions t;
    t.input = filtered;
    t.output = rendered;
    t.columns = options.columns;
    t.render = options.render;
    apply_template(t);
    SplitOptions s;
    s.input = rendered;
    s.output = options.output;
    s.val_ratio = options.val_ratio;
    s.seed = options.seed;
    const FileCounts parts = split(s);
    counts.written = parts.written;
    counts.outputs = parts.outputs;
    clean();
    return counts;
  } catch (...) {
    clean();
    throw;
  }
}

}  // namespace pmetal::data
