// Completion scripts for bash, zsh and fish, generated from the descriptions.
#include <algorithm>
#include <map>

#include "app/cli/help.h"
#include "app/cli/parse.h"
#include "base/nearest.h"

namespace pmetal::app {
namespace {

using jobs::FieldDescriptor;
using jobs::FieldKind;

bool is_path(const FieldDescriptor& field) {
  return field.kind == FieldKind::kPath || field.kind == FieldKind::kModel || field.kind == FieldKind::kDataset;
}

std::vector<std::string> words_of(const jobs::JobSpec& spec) {
  std::vector<std::string> words;
  for (const FieldDescriptor& field : spec.fields) words.push_back(jobs::flag_of(field));
  for (const GlobalFlag& global : global_flags(spec)) words.emplace_back(global.flag);
  return words;
}

// first words of commands of two ("text encode") with their second words
std::map<std::string, std::vector<std::string>> groups() {
  std::map<std::string, std::vector<std::string>> all;
  for (const jobs::Command& command : jobs::all_commands())
    if (const size_t space = command.spec->name.find(' '); space != std::string_view::npos)
      all[std::string(command.spec->name.substr(0, space))].emplace_back(command.spec->name.substr(space + 1));
  return all;
}

std::string all_names() {
  std::string names;
  for (const jobs::Command& command : jobs::all_commands())
    if (command.spec->name.find(' ') == std::string_view::npos) names += fmt::format("{} ", command.spec->name);
  for (const auto& [group, seconds] : groups()) names += group + " ";
  for (const MetaCommand& meta : meta_commands()) names += fmt::format("{} ", meta.name);
  names.pop_back();
  return names;
}

// inside '...' of a shell
std::string quoted(std::string_view text) {
  std::string out;
  for (const char c : text)
    if (c == '\'')
      out += "'\\''";
    else
      out += c;
  return "'" + out + "'";
}

std::string bash() {
  std::string text =
      "# bash completion for pmetal: source this file\n_pmetal() {\n"
      "  local word=\"${COMP_WORDS[COMP_CWORD]}\" before=\"${COMP_WORDS[COMP_CWORD-1]}\" command=\"${COMP_WORDS[1]}\"\n"
      "  COMPREPLY=()\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n";
  text += fmt::format("    COMPREPLY=($(compgen -W {} -- \"$word\")); return\n  fi\n", quoted(all_names()));
  for (const auto& [group, seconds] : groups())
    text += fmt::format(
        "  if [ \"$command\" = {} ]; then\n    if [ \"$COMP_CWORD\" -eq 2 ]; then COMPREPLY=($(compgen -W {} -- "
        "\"$word\")); return; fi\n    command=\"$command ${{COMP_WORDS[2]}}\"\n  fi\n",
        group, quoted(fmt::format("{}", fmt::join(seconds, " "))));
  text += "  case \"$command $before\" in\n";
  for (const jobs::Command& command : jobs::all_commands())
    for (const FieldDescriptor& field : command.spec->fields) {
      std::string pattern = quoted(fmt::format("{} {}", command.spec->name, jobs::flag_of(field)));
      if (field.short_flag != 0) pattern += "|" + quoted(fmt::format("{} -{}", command.spec->name, field.short_flag));
      if (!field.options.empty())
        text += fmt::format("    {}) COMPREPLY=($(compgen -W {} -- \"$word\")); return ;;\n", pattern,
                            quoted(fmt::format("{}", fmt::join(jobs::canonical_options(field), " "))));
      else if (is_path(field))
        text += fmt::format("    {}) COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n", pattern);
    }
  text += "    *' --config'|*' -c'|*' --log-events') COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n";
  text += "    'completions completions') COMPREPLY=($(compgen -W 'bash zsh fish' -- \"$word\")); return ;;\n";
  text += fmt::format("    'help help'|'schema schema') COMPREPLY=($(compgen -W {} -- \"$word\")); return ;;\n  esac\n",
                      quoted(all_names()));
  text += "  case \"$command\" in\n";
  for (const jobs::Command& command : jobs::all_commands())
    text += fmt::format("    {}) COMPREPLY=($(compgen -W {} -- \"$word\")) ;;\n", quoted(command.spec->name),
                        quoted(fmt::format("{}", fmt::join(words_of(*command.spec), " "))));
  return text + "  esac\n}\ncomplete -o default -F _pmetal pmetal\n";
}

// zsh _arguments takes 'name[help]:label:action'; brackets and colons in the help are escaped
std::string zsh_help(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string zsh() {
  std::string text =
      "#compdef pmetal\n# zsh completion for pmetal: put it as _pmetal into a folder of $fpath\n_pmetal() {\n"
      "  local -a commands=(\n";
  for (const jobs::Command& command : jobs::all_commands())
    if (command.spec->name.find(' ') == std::string_view::npos)
      text += fmt::format("    {}\n", quoted(fmt::format("{}:{}", command.spec->name, command.spec->summary)));
  for (const auto& [group, seconds] : groups())
    text += fmt::format("    {}\n", quoted(fmt::format("{}:{}", group, fmt::join(seconds, ", "))));
  for (const MetaCommand& meta : meta_commands())
    text += fmt::format("    {}\n", quoted(fmt::format("{}:{}", meta.name, meta.summary)));
  text +=
      "  )\n  if (( CURRENT == 2 )); then _describe command commands; return; fi\n"
      "  local command=$words[2]\n  (( CURRENT-- ))\n  shift words\n";
  for (const auto& [group, seconds] : groups())
    text += fmt::format(
        "  if [[ $command == {} ]]; then\n    if (( CURRENT == 2 )); then _values command {}; return; fi\n"
        "    command=\"$command $words[2]\"; (( CURRENT-- )); shift words\n  fi\n",
        group, fmt::join(seconds, " "));
  text += "  case $command in\n";
  for (const jobs::Command& command : jobs::all_commands()) {
    text += fmt::format("    {}) _arguments", quoted(command.spec->name));
    for (const FieldDescriptor& field : command.spec->fields) {
      std::string action;
      if (!field.options.empty())
        action = fmt::format(":value:({})", fmt::join(jobs::canonical_options(field), " "));
      else if (is_path(field))
        action = ":file:_files";
      else if (field.kind != FieldKind::kToggle)
        action = ":value:";
      text += " \\\n      " + quoted(fmt::format("{}[{}]{}", jobs::flag_of(field), zsh_help(field.help), action));
    }
    for (const GlobalFlag& global : global_flags(*command.spec))
      text += " \\\n      " + quoted(fmt::format("{}[{}]{}", global.flag, zsh_help(global.help),
                                                 global.value_name.empty() ? "" : ":file:_files"));
    text += " ;;\n";
  }
  return text +
         "    completions) _values shell bash zsh fish ;;\n    help|schema) _describe command commands ;;\n"
         "  esac\n}\n_pmetal \"$@\"\n";
}

std::string fish() {
  std::string text =
      "# fish completion for pmetal: put it into ~/.config/fish/completions/pmetal.fish\n"
      "complete -c pmetal -f\n";
  const auto command_line = [](std::string_view name, std::string_view summary) {
    return fmt::format("complete -c pmetal -n __fish_use_subcommand -a {} -d {}\n", name, quoted(summary));
  };
  for (const jobs::Command& command : jobs::all_commands())
    if (command.spec->name.find(' ') == std::string_view::npos)
      text += command_line(command.spec->name, command.spec->summary);
  for (const auto& [group, seconds] : groups()) {
    text += command_line(group, fmt::format("{}", fmt::join(seconds, ", ")));
    text += fmt::format("complete -c pmetal -n '__fish_seen_subcommand_from {}' -a {}\n", group,
                        quoted(fmt::format("{}", fmt::join(seconds, " "))));
  }
  for (const MetaCommand& meta : meta_commands()) text += command_line(meta.name, meta.summary);
  text += "complete -c pmetal -n '__fish_seen_subcommand_from completions' -a 'bash zsh fish'\n";
  for (const jobs::Command& command : jobs::all_commands()) {
    // of two words, the second tells
    const std::string_view name = command.spec->name;
    const std::string begin =
        fmt::format("complete -c pmetal -n '__fish_seen_subcommand_from {}'",
                    name.substr(name.find(' ') == std::string_view::npos ? 0 : name.find(' ') + 1));
    for (const FieldDescriptor& field : command.spec->fields) {
      text += fmt::format("{} -l {} -d {}", begin, jobs::flag_of(field).substr(2), quoted(field.help));
      if (field.short_flag != 0) text += fmt::format(" -s {}", field.short_flag);
      if (!field.options.empty())
        text += fmt::format(" -x -a {}", quoted(fmt::format("{}", fmt::join(jobs::canonical_options(field), " "))));
      else if (is_path(field))
        text += " -r -F";
      else if (field.kind != FieldKind::kToggle)
        text += " -x";
      text += "\n";
    }
    for (const GlobalFlag& global : global_flags(*command.spec))
      text += fmt::format("{} -l {} -d {}{}\n", begin, global.flag.substr(2), quoted(global.help),
                          global.value_name.empty() ? "" : " -r -F");
  }
  return text;
}

}  // namespace

std::string completions(std::string_view shell) {
  if (shell == "bash") return bash();
  if (shell == "zsh") return zsh();
  if (shell == "fish") return fish();
  const std::string_view shells[] = {"bash", "zsh", "fish"};
  fail(ErrorCode::kUsage, "completions: \"{}\" is not one of bash, zsh, fish{}", shell, did_you_mean(shell, shells));
}

}  // namespace pmetal::app
