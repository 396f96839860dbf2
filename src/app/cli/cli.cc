#include "app/cli/cli.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <iostream>

#include <nlohmann/json.hpp>

#include "app/cli/help.h"
#include "app/cli/line_editor.h"
#include "app/cli/parse.h"
#include "app/cli/progress.h"
#include "app/log.h"
#include "app/run_job.h"
#include "base/failure.h"
#include "base/nearest.h"

namespace pmetal::app {
namespace {

std::atomic<bool> cancel_requested{false};  // signal handlers reach nothing else
jobs::Interrupts interrupts;

void on_signal(int signal) {
  // twice without the job having noticed: as if it took none
  if (signal == SIGINT && interrupts.wanted && !interrupts.pending.exchange(true)) return;
  if (cancel_requested.exchange(true)) ::_exit(kExitCancelled);  // asked twice: at once
}

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);  // without SA_RESTART: a read of the terminal ends
  sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);  // a closed pipe is a write error, and must not end a training run
}

int report(const Outcome& outcome, std::string_view command) {
  if (outcome.kind == Outcome::kDone) return kExitDone;
  std::string cause = outcome.message;
  for (char& c : cause)
    if (c == '\n' || c == '\r') c = ' ';  // one line, whatever the message quotes
  std::cerr << "pmetal" << (command.empty() ? "" : " ") << command << ": " << cause << std::endl;
  if (outcome.kind == Outcome::kCancelled) return kExitCancelled;
  return outcome.code == ErrorCode::kUsage ? kExitUsage : kExitFailed;
}

[[noreturn]] void unknown_command(const std::string& word) {
  std::vector<std::string_view> names;
  for (const jobs::Command& command : jobs::all_commands()) names.push_back(command.spec->name);
  for (const MetaCommand& meta : meta_commands()) names.push_back(meta.name);
  fail(ErrorCode::kUsage, "unknown command \"{}\"{} (all: `pmetal --help`)", word, did_you_mean(word, names));
}

const jobs::JobSpec& spec_named(const std::string& word) {
  const jobs::Command* command = jobs::find_command(word);
  if (command == nullptr) unknown_command(word);
  return *command->spec;
}

// --help, --version and the commands about pmetal itself; false when the word is none of them
bool run_meta_command(std::span<const std::string> words) {
  const std::string& name = words[0];
  const auto argument = [&]() -> std::string {
    if (words.size() == 3 && jobs::find_command(words[1] + " " + words[2])) return words[1] + " " + words[2];
    if (words.size() != 2) fail(ErrorCode::kUsage, "{} takes one word; see `pmetal --help`", name);
    return words[1];
  };
  if (name == "--help" || name == "-h" || (name == "help" && words.size() == 1))
    std::cout << overview_help();
  else if (name == "help")
    std::cout << command_help(spec_named(argument()));
  else if (name == "--version" || name == "-V")
    std::cout << "pmetal " PMETAL_VERSION "\n";
  else if (name == "completions")
    std::cout << completions(argument());
  else if (name == "man")
    std::cout << man_page();
  else if (name == "schema")
    std::cout << jobs::json_schema(spec_named(argument())).dump(2) << "\n";
  else
    return false;
  return true;
}

Outcome run_command(const jobs::Command& command, std::span<const std::string> words) {
  CommandLine line = parse_command_line(*command.spec, words);
  if (line.help) {
    std::cout << command_help(*command.spec);
    return {};
  }
  jobs::require_valid(line.options);
  const jobs::LogLevel level = log_level();
  ProgressRenderer renderer(stderr_terminal(level, line.json), std::cerr, std::cout);
  LogFileSink log("cli", level);
  std::optional<jobs::JsonLinesSink> event_file;
  jobs::Broadcast events;
  events.add(&renderer);
  events.add(&log);
  if (line.log_events) events.add(&event_file.emplace(*line.log_events));
  TerminalInput typed(STDIN_FILENO, STDERR_FILENO);
  std::istream terminal(&typed);
  std::istream& input = TerminalInput::is_possible(STDIN_FILENO, STDERR_FILENO) ? terminal : std::cin;
  jobs::JobContext context(jobs::new_job_id(), {&events, &std::cout, &input, &cancel_requested, &interrupts});
  context.json = line.json;
  context.dry_run = line.dry_run;
  context.colour = ::isatty(STDOUT_FILENO) && std::getenv("NO_COLOR") == nullptr;
  return run_job(command, line.options, context);
}

// The command that the first words name and how many words that takes: "train", "text encode".
std::pair<const jobs::Command*, size_t> match_command(std::span<const std::string> words) {
  if (words.size() > 1)
    if (const jobs::Command* command = jobs::find_command(words[0] + " " + words[1])) return {command, 2};
  return {jobs::find_command(words[0]), 1};
}

// help of a group of commands that share their first word; empty when there is none
std::string group_help(const std::string& word) {
  std::string text;
  for (const jobs::Command& command : jobs::all_commands())
    if (command.spec->name.starts_with(word + " "))
      text += fmt::format("  pmetal {:<22} {}\n", command.spec->name, command.spec->summary);
  return text;
}

Outcome run_words(std::span<const std::string> words) {
  try {
    Outcome outcome;
    if (!run_meta_command(words)) {
      const auto [command, n] = match_command(words);
      if (command == nullptr) {
        const std::string group = group_help(words[0]);
        if (group.empty()) unknown_command(words[0]);
        if (words.size() > 1 && words[1] != "--help" && words[1] != "-h") unknown_command(words[0] + " " + words[1]);
        std::cout << group;
        return outcome;
      }
      outcome = run_command(*command, words.subspan(n));
    }
    if (!std::cout.flush() && outcome.kind == Outcome::kDone)
      return {Outcome::kFailed, ErrorCode::kIo, "stdout: cannot write the result"};
    return outcome;
  } catch (const Error& error) {
    return {Outcome::kFailed, error.code(), error.what()};
  } catch (const std::exception& error) {
    return {Outcome::kFailed, ErrorCode::kIo, failure_text(error)};
  }
}

}  // namespace

int cli_main(int argc, char** argv) {
  install_signal_handlers();
  const std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  if (words.empty()) {
    std::cerr << overview_help();
    return kExitUsage;
  }
  const jobs::Command* command = match_command(words).first;
  return report(run_words(words), command ? command->spec->name : "");
}

}  // namespace pmetal::app
