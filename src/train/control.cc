#include "train/control.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "formats/json.h"
#include "formats/json_reader.h"

namespace pmetal::train {

std::optional<ControlAction> take_control(const fs::path& output) {
  const fs::path file = output / ".lr_control.json", claimed = output / ".lr_control.json.claimed";
  std::error_code error;
  fs::rename(file, claimed, error);
  if (error) return std::nullopt;
  const std::string text = read_text(claimed);
  fs::remove(claimed, error);
  const nlohmann::ordered_json value = formats::parse_json(text, file.string());
  const formats::JsonReader json(value, file.string());
  const std::string action = json.string("action");
  const auto number = [&](const char* first, const char* second) {
    const double v = json.number(json.has(first) ? first : second);
    if (!(v > 0) || !std::isfinite(v)) json.refuse(first, "must be a positive number");
    return v;
  };
  if (action == "set_lr") {
    const double lr = number("value", "lr");
    return ControlAction{ControlAction::kSetLr, lr, fmt::format("learning rate set to {:.3g}", lr)};
  }
  if (action == "reduce_lr") {
    const double factor = number("factor", "value");
    return ControlAction{ControlAction::kReduceLr, factor, fmt::format("learning rate multiplied by {:.3g}", factor)};
  }
  if (action == "reset_lr") return ControlAction{ControlAction::kResetLr, 0, "learning rate back on its schedule"};
  if (action == "save_checkpoint") return ControlAction{ControlAction::kSave, 0, "checkpoint asked for"};
  if (action == "graceful_stop") return ControlAction{ControlAction::kStop, 0, "stop asked for"};
  json.refuse(
      "action",
      fmt::format("\"{}\" is not known; known: set_lr, reduce_lr, reset_lr, save_checkpoint, graceful_stop", action));
}

}  // namespace pmetal::train
