// The control file of a running job: <output>/.lr_control.json, written whole and renamed by whoever steers, claimed by
// renaming it away. {"action": "set_lr" | "reduce_lr" | "reset_lr" | "save_checkpoint" | "graceful_stop", "value" |
// "factor": x}
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace pmetal::train {

struct ControlAction {
  enum Kind { kSetLr, kReduceLr, kResetLr, kSave, kStop } kind;
  double value = 0;
  std::string text;  // for the log
};
// Nothing when there is no file. A malformed one is removed too: Error(kInvalidInput) says what is wrong with it.
std::optional<ControlAction> take_control(const std::filesystem::path& output);

}  // namespace pmetal::train
