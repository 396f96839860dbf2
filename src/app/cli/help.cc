#include "app/cli/help.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "app/cli/parse.h"

namespace pmetal::app {
namespace {

using jobs::FieldDescriptor;
using jobs::Json;
using jobs::ValueType;

constexpr size_t kHelpColumn = 34, kLineWidth = 110;

std::string default_text(const Json& value) {
  if (value.is_string()) {
    const std::string text = value.get<std::string>();
    const bool is_plain = text.find_first_of(" \n\t") == std::string::npos;
    return is_plain ? text : value.dump();
  }
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());
  if (value.is_array()) {
    std::string text;
    for (const Json& entry : value) text += (text.empty() ? "" : ",") + default_text(entry);
    return text;
  }
  return value.dump();
}

std::string value_name_of(const FieldDescriptor& field) {
  if (!field.value_name.empty()) return std::string(field.value_name);
  switch (field.access->type) {
    case ValueType::kToggle: return {};
    case ValueType::kEnum: return "NAME";
    case ValueType::kInteger:
    case ValueType::kUnsigned: return "N";
    case ValueType::kNumber: return "X";
    default: return "TEXT";
  }
}

// two columns; the second wraps
std::string row(const std::string& left, const std::string& right) {
  std::string text = "  " + left, line;
  if (text.size() + 2 > kHelpColumn)
    text += "\n" + std::string(kHelpColumn, ' ');
  else
    text.resize(kHelpColumn, ' ');
  size_t column = kHelpColumn;
  for (size_t begin = 0; begin < right.size();) {
    const size_t end = std::min(right.find(' ', begin), right.size());
    if (column + (end - begin) > kLineWidth && column > kHelpColumn) {
      text.pop_back();
      text += "\n" + std::string(kHelpColumn, ' ');
      column = kHelpColumn;
    }
    text += right.substr(begin, end - begin) + " ";
    column += end - begin + 1;
    begin = end + 1;
  }
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text + "\n";
}

std::string field_row(const jobs::JobSpec& spec, size_t i) {
  const FieldDescriptor& field = spec.fields[i];
  std::string left = field.short_flag != 0 ? fmt::format("-{}, ", field.short_flag) : "    ";
  left += jobs::flag_of(field);
  if (const std::string value = value_name_of(field); !value.empty()) left += " " + value;
  const std::string note = field_note(spec, i);
  return row(left, std::string(field.help) + (note.empty() ? "" : " [" + note + "]"));
}

std::string usage_line(const jobs::JobSpec& spec) {
  std::string line = fmt::format("pmetal {}", spec.name);
  for (const FieldDescriptor& field : spec.fields) {
    if (field.is_positional)
      line += field.required ? " " + value_name_of(field) : " [" + value_name_of(field) + "]";
    else if (field.required)
      line += fmt::format(" {} {}", jobs::flag_of(field), value_name_of(field));
  }
  return line + " [FLAGS]";
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

constexpr MetaCommand kMeta[] = {
    {"help", "[COMMAND]", "show help"},
    {"schema", "COMMAND", "print the JSON Schema of a command's options"},
    {"completions", "bash|zsh|fish", "print a completion script for a shell"},
    {"man", "", "print the manual page"},
};

struct Variable {
  std::string_view name, help;
};
constexpr Variable kVariables[] = {
    {"PMETAL_LOG", "how much is said on stderr: trace, debug, info (default), warn, error, off"},
    {"PMETAL_LOG_FILE", "log file instead of pmetal/cli.log in the user's cache folder"},
    {"PMETAL_MAX_ISA", "highest instruction set to use: avx2, avx512 or amx"},
    {"NO_COLOR", "any value: no colours in the terminal"},
};

// roff: a leading dot or quote and backslashes would be commands; minus signs must stay minus signs
std::string roff(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else
      out += c;
  }
  if (!out.empty() && (out[0] == '.' || out[0] == '\'')) out.insert(0, "\\&");
  return out;
}

}  // namespace

std::span<const MetaCommand> meta_commands() { return kMeta; }

std::string field_note(const jobs::JobSpec& spec, size_t i) {
  const FieldDescriptor& field = spec.fields[i];
  std::vector<std::string> parts;
  if (field.required) parts.push_back("required");
  if (field.access->type == ValueType::kEnum)
    parts.push_back(fmt::format("{}", fmt::join(canonical_options(field), "|")));
  if (has_bounds(field)) parts.push_back(bounds_text(field));
  const Json value = jobs::JobOptions(spec).get(i);
  const bool is_empty = value.is_null() || value == "" || (value.is_structured() && value.empty());
  if (!is_empty && field.access->type != ValueType::kToggle) parts.push_back("default " + default_text(value));
  return fmt::format("{}", fmt::join(parts, "; "));
}

std::string overview_help() {
  std::string text =
      "pmetal: fine-tune, evaluate and chat with open-weight language models on your own machine\n\n"
      "usage: pmetal COMMAND [FLAGS]\n\ncommands\n";
  for (const jobs::Command& command : jobs::all_commands())
    text += row(std::string(command.spec->name), std::string(command.spec->summary));
  text += "\nabout pmetal itself\n";
  for (const MetaCommand& meta : kMeta)
    text += row(fmt::format("{} {}", meta.name, meta.arguments), std::string(meta.summary));
  text += row("--version", "print the version");
  text += "\nenvironment\n";
  for (const Variable& variable : kVariables) text += row(std::string(variable.name), std::string(variable.help));
  text +=
      "\n`pmetal COMMAND --help` shows a command's flags and examples.\n"
      "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C or SIGTERM.\n";
  return text;
}

std::string command_help(const jobs::JobSpec& spec) {
  std::string text = fmt::format("pmetal {}: {}\n\nusage: {}\n", spec.name, spec.summary, usage_line(spec));
  std::vector<std::string_view> groups;
  for (const FieldDescriptor& field : spec.fields)
    if (std::find(groups.begin(), groups.end(), field.group) == groups.end()) groups.push_back(field.group);
  for (const std::string_view group : groups) {
    text += fmt::format("\n{}\n", group);
    for (size_t i = 0; i < spec.fields.size(); ++i)
      if (spec.fields[i].group == group) text += field_row(spec, i);
  }
  text += "\nGeneral\n";
  for (const GlobalFlag& global : global_flags(spec))
    text += row(fmt::format("{}{}{}{}", global.short_flag != 0 ? fmt::format("-{}, ", global.short_flag) : "    ",
                            global.flag, global.value_name.empty() ? "" : " ", global.value_name),
                std::string(global.help));
  const std::vector<std::string_view> examples = lines_of(spec.examples);
  text += examples.size() == 1 ? "\nExample\n" : "\nExamples\n";
  for (const std::string_view example : examples) text += fmt::format("  pmetal {}\n", example);
  return text;
}

std::string man_page() {
  std::string text =
      ".TH PMETAL 1\n.SH NAME\npmetal \\- fine-tune, evaluate and chat with open-weight language models\n"
      ".SH SYNOPSIS\n.B pmetal\n.I COMMAND\n[FLAGS]\n.SH COMMANDS\n";
  for (const jobs::Command& command : jobs::all_commands()) {
    const jobs::JobSpec& spec = *command.spec;
    text += fmt::format(".SS {}\n{}.\n", roff(usage_line(spec)), roff(spec.summary));
    for (size_t i = 0; i < spec.fields.size(); ++i) {
      const FieldDescriptor& field = spec.fields[i];
      const std::string note = field_note(spec, i);
      text += fmt::format(
          ".TP\n.B {}{}{}\n{}{}\n", roff(field.short_flag != 0 ? fmt::format("-{}, ", field.short_flag) : ""),
          roff(jobs::flag_of(field)), roff(value_name_of(field).empty() ? "" : " " + value_name_of(field)),
          roff(field.help), roff(note.empty() ? "" : " [" + note + "]"));
    }
    text += ".PP\nExamples:\n.nf\n";
    for (const std::string_view example : lines_of(spec.examples)) text += fmt::format("pmetal {}\n", roff(example));
    text += ".fi\n";
  }
  text += ".SH FLAGS OF ALL COMMANDS\n";
  const jobs::JobSpec all = {
      .name = {}, .summary = {}, .examples = {}, .fields = {}, .options = {}, .has_json = true, .has_dry_run = true};
  text += ".TP\n.B \\-c, \\-\\-config FILE\nread options from a YAML file; flags win over it\n";
  for (const GlobalFlag& global : global_flags(all))
    text += fmt::format(".TP\n.B {}{}{}\n{}\n", roff(global.flag), global.value_name.empty() ? "" : " ",
                        global.value_name, roff(global.help));
  text += ".SH ENVIRONMENT\n";
  for (const Variable& variable : kVariables)
    text += fmt::format(".TP\n.B {}\n{}\n", variable.name, roff(variable.help));
  text += ".SH EXIT STATUS\n0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl\\-C or SIGTERM.\n";
  return text;
}

}  // namespace pmetal::app
