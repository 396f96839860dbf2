// The command line: finds the command, fills its options, runs it, and turns the outcome into an exit code.
#pragma once

namespace pmetal::app {

enum ExitCode { kExitDone = 0, kExitFailed = 1, kExitUsage = 2, kExitCancelled = 130 };

int cli_main(int argc, char** argv);

}  // namespace pmetal::app
