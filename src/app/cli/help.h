// Texts generated from the descriptions of the commands: help, man page, shell completions.
#pragma once

#include <string>
#include <string_view>

#include "jobs/spec.h"

namespace pmetal::app {

std::string overview_help();                          // `pmetal --help`
std::string command_help(const jobs::JobSpec& spec);  // `pmetal COMMAND --help`
std::string man_page();                               // `pmetal man`: roff
std::string completions(std::string_view shell);      // bash, zsh or fish; Error(kUsage) otherwise

// commands that are about the program itself
struct MetaCommand {
  std::string_view name, arguments, summary;
};
std::span<const MetaCommand> meta_commands();

// "default 16; 1..1024": what a person must know of a field beside its help
std::string field_note(const jobs::JobSpec& spec, size_t field);

}  // namespace pmetal::app
