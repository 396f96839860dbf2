// The words after `pmetal COMMAND` become options: explicit flag > --config file > default.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/spec.h"

namespace pmetal::app {

struct CommandLine {
  explicit CommandLine(const jobs::JobSpec& spec) : options(spec) {}
  jobs::JobOptions options;
  bool help = false, json = false, dry_run = false;
  std::optional<std::string> config, log_events;
};

// a flag that every command takes beside its own
struct GlobalFlag {
  std::string_view flag;
  char short_flag;              // 0: none
  std::string_view value_name;  // empty: takes no value
  std::string_view help;
};
std::vector<GlobalFlag> global_flags(const jobs::JobSpec& spec);

// Throws Error(kUsage) naming the flag, the value and the nearest valid flag. Values are not yet checked against their
// bounds (jobs::require_valid does).
CommandLine parse_command_line(const jobs::JobSpec& spec, std::span<const std::string> words);

}  // namespace pmetal::app
