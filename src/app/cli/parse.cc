#include "app/cli/parse.h"

#include <nlohmann/json.hpp>

#include "base/nearest.h"

namespace pmetal::app {
namespace {

using jobs::FieldDescriptor;
using jobs::Json;
using jobs::ValueType;

constexpr std::string_view kConfig = "--config", kLogEvents = "--log-events", kJson = "--json", kDryRun = "--dry-run",
                           kHelp = "--help";

bool is_list(const FieldDescriptor& field) {
  return field.access->type == ValueType::kTextList || field.access->type == ValueType::kIntegerList;
}

[[noreturn]] void refuse_word(const jobs::JobSpec& spec, const std::string& word) {
  const std::string flag = word.substr(0, word.find('='));
  if (flag.empty() || flag[0] != '-')
    fail(ErrorCode::kUsage, "\"{}\" is not expected here; see `pmetal {} --help`", word, spec.name);
  for (const jobs::RefusedFlag& refused : spec.refused)
    if (refused.flag == flag) fail(ErrorCode::kUsage, "{}: {}", flag, refused.text);
  std::vector<std::string> known;
  for (const FieldDescriptor& field : spec.fields) {
    known.push_back(jobs::flag_of(field));
    for (const std::string_view alias : jobs::split_commas(field.aliases)) known.emplace_back(alias);
  }
  for (const GlobalFlag& global : global_flags(spec)) known.emplace_back(global.flag);
  const std::vector<std::string_view> names(known.begin(), known.end());
  fail(ErrorCode::kUsage, "unknown flag {}{} (all: `pmetal {} --help`)", flag, did_you_mean(flag, names), spec.name);
}

// what was typed for each field; several entries for a repeated list flag
using TypedWords = std::vector<std::vector<std::string>>;

void apply_words(jobs::JobOptions& options, const TypedWords& typed) {
  for (size_t i = 0; i < typed.size(); ++i) {
    const std::string flag = jobs::flag_of(options.fields()[i]);
    Json joined = Json::array();
    for (const std::string& word : typed[i]) {
      options.set_text(i, word, flag);
      if (typed[i].size() > 1)
        for (const Json& entry : options.get(i)) joined.push_back(entry);
    }
    if (typed[i].size() > 1) options.set_typed(i, joined, flag);
  }
}

// Walks over the words: `--flag value`, `--flag=value`, `-f value`, `-f=value`, bare words; after `--` all are bare.
class WordReader {
 public:
  explicit WordReader(std::span<const std::string> words) : words_(words) {}
  bool next() {
    if (at_ < words_.size() && words_[at_] == "--" && !all_bare_) all_bare_ = true, ++at_;
    if (at_ >= words_.size()) return false;
    word_ = words_[at_++];
    const bool is_flag = !all_bare_ && word_.size() > 1 && word_[0] == '-';
    const size_t equals = is_flag ? word_.find('=') : std::string::npos;
    flag_ = is_flag ? word_.substr(0, equals) : std::string();
    value_.reset();
    if (equals != std::string::npos) value_ = word_.substr(equals + 1);
    return true;
  }
  const std::string& word() const { return word_; }
  const std::string& flag() const { return flag_; }  // empty for a bare word
  const std::optional<std::string>& attached_value() const { return value_; }
  // the value after '=', else the next word, whatever it looks like
  std::string take_value() {
    if (flag_.empty()) return word_;
    if (value_) return *value_;
    if (at_ >= words_.size()) fail(ErrorCode::kUsage, "{}: needs a value", flag_);
    return words_[at_++];
  }

 private:
  std::span<const std::string> words_;
  size_t at_ = 0;
  bool all_bare_ = false;
  std::string word_, flag_;
  std::optional<std::string> value_;
};

std::optional<size_t> find_field(const jobs::JobSpec& spec, const WordReader& reader) {
  for (size_t i = 0; i < spec.fields.size(); ++i) {
    const FieldDescriptor& field = spec.fields[i];
    if (reader.flag().empty() ? field.is_positional : reader.flag() == jobs::flag_of(field)) return i;
    if (field.short_flag != 0 && reader.flag() == std::string{'-', field.short_flag}) return i;
    for (const std::string_view alias : jobs::split_commas(field.aliases))
      if (reader.flag() == alias) return i;
  }
  return std::nullopt;
}

void read_field(const FieldDescriptor& field, WordReader& reader, std::vector<std::string>& typed) {
  const bool is_toggle = field.access->type == ValueType::kToggle;
  if (!typed.empty() && !is_list(field)) fail(ErrorCode::kUsage, "{} is given twice", jobs::flag_of(field));
  typed.push_back(is_toggle ? reader.attached_value().value_or("true") : reader.take_value());
}

// false when the word is none of the flags that every command takes
bool read_global(const jobs::JobSpec& spec, WordReader& reader, CommandLine& line) {
  for (const GlobalFlag& global : global_flags(spec)) {
    const bool is_short = global.short_flag != 0 && reader.flag() == std::string{'-', global.short_flag};
    if (reader.flag() != global.flag && !is_short) continue;
    if (global.value_name.empty() && reader.attached_value())
      fail(ErrorCode::kUsage, "{} takes no value", reader.flag());
    if (global.flag == kConfig) line.config = reader.take_value();
    if (global.flag == kLogEvents) line.log_events = reader.take_value();
    if (global.flag == kJson) line.json = true;
    if (global.flag == kDryRun) line.dry_run = true;
    if (global.flag == kHelp) line.help = true;
    return true;
  }
  return false;
}

}  // namespace

std::vector<GlobalFlag> global_flags(const jobs::JobSpec& spec) {
  std::vector<GlobalFlag> flags;
  if (!spec.fields.empty()) flags.push_back({kConfig, 'c', "FILE", "read options from a YAML file; flags win over it"});
  if (spec.has_json) flags.push_back({kJson, 0, "", "write one JSON document to stdout"});
  if (spec.has_dry_run) flags.push_back({kDryRun, 0, "", "say what would happen and what it needs, change nothing"});
  flags.push_back({kLogEvents, 0, "FILE", "append the job's events as JSON lines"});
  flags.push_back({kHelp, 'h', "", "show this help"});
  return flags;
}

CommandLine parse_command_line(const jobs::JobSpec& spec, std::span<const std::string> words) {
  CommandLine line(spec);
  TypedWords typed(spec.fields.size());
  for (WordReader reader(words); reader.next();) {
    if (const std::optional<size_t> field = find_field(spec, reader))
      read_field(spec.fields[*field], reader, typed[*field]);
    else if (!read_global(spec, reader, line))
      refuse_word(spec, reader.word());
  }
  if (line.help) return line;
  if (line.config) jobs::apply_yaml_file(line.options, *line.config);
  apply_words(line.options, typed);
  return line;
}

}  // namespace pmetal::app
