// The tables that CMake collects: descriptions and commands.
#include "jobs/spec.h"

namespace pmetal::jobs {

#define X(stem) extern const JobSpec spec_##stem;
#include "jobs/specs.inc"
#undef X

#define X(stem) void run_##stem(const JobOptions& options, JobContext& context);
#include "jobs/commands.inc"
#undef X

std::span<const JobSpec* const> all_specs() {
  static constexpr const JobSpec* kSpecs[] = {
#define X(stem) &spec_##stem,
#include "jobs/specs.inc"
#undef X
  };
  return kSpecs;
}

std::span<const Command> all_commands() {
  static constexpr Command kCommands[] = {
#define X(stem) {&spec_##stem, &run_##stem},
#include "jobs/commands.inc"
#undef X
  };
  return kCommands;
}

const Command* find_command(std::string_view name) {
  for (const Command& command : all_commands())
    if (command.spec->name == name) return &command;
  return nullptr;
}

}  // namespace pmetal::jobs
