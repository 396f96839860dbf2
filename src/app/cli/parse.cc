#include "app/cli/parse.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/nearest.h"

namespace pmetal::app {
namespace {

using jobs::FieldDescriptor;
using jobs::Json;
using jobs::ValueType;

constexpr std::string_view kConfig = "--config", kLogEvents = "--log-events", kJson = "--json", kDryRun = "--dry-run",
                           kHelp = "--help";

// "-m,--model,--other": the spelling CLI11 takes; a positional adds its bare name
std::string spelling_of(const FieldDescriptor& field) {
  std::string spelling = jobs::flag_of(field);
  if (field.short_flag != 0) spelling += fmt::format(",-{}", field.short_flag);
  for (const std::string_view alias : jobs::split_commas(field.aliases)) spelling += fmt::format(",{}", alias);
  if (field.is_positional) spelling += fmt::format(",{}", field.name);
  return spelling;
}

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
    if (typed[i].size() > 1) options.set(i, joined, flag);
  }
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
  CLI::App parser;
  parser.set_help_flag();
  parser.allow_extras();
  for (size_t i = 0; i < spec.fields.size(); ++i) {
    const FieldDescriptor& field = spec.fields[i];
    if (field.access->type == ValueType::kToggle) {
      parser.add_flag_function(spelling_of(field),
                               [&typed, i](int64_t count) { typed[i] = {count > 0 ? "true" : "false"}; });
      continue;
    }
    CLI::Option* option =
        parser.add_option(spelling_of(field), CLI::callback_t([&typed, i](const CLI::results_t& words) {
                            typed[i] = words;
                            return true;
                          }));
    option->type_size(1)->expected(1)->allow_extra_args(false);
    if (is_list(field)) option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  }
  for (const GlobalFlag& global : global_flags(spec)) {
    std::string spelling(global.flag);
    if (global.short_flag != 0) spelling += fmt::format(",-{}", global.short_flag);
    if (global.flag == kConfig) parser.add_option(spelling, line.config);
    if (global.flag == kLogEvents) parser.add_option(spelling, line.log_events);
    if (global.flag == kJson) parser.add_flag(spelling, line.json);
    if (global.flag == kDryRun) parser.add_flag(spelling, line.dry_run);
    if (global.flag == kHelp) parser.add_flag(spelling, line.help);
  }
  try {
    std::vector<std::string> reversed(words.rbegin(), words.rend());  // the order CLI11 takes a vector in
    parser.parse(reversed);
  } catch (const CLI::ParseError& error) {
    fail(ErrorCode::kUsage, "{}", error.what());
  }
  if (line.help) return line;
  for (const std::string& word : parser.remaining()) refuse_word(spec, word);
  if (line.config) jobs::apply_yaml_file(line.options, *line.config);
  apply_words(line.options, typed);
  return line;
}

}  // namespace pmetal::app
