#include "base/device.h"

#include <charconv>

#include "base/error.h"

namespace pmetal {

std::string to_string(Device device) {
  switch (device.kind) {
    case DeviceKind::kCpu: return "cpu";
    case DeviceKind::kCuda: return fmt::format("cuda:{}", device.index);
    case DeviceKind::kMeta: return "meta";
  }
  return "?";
}

Device parse_device(std::string_view text) {
  if (text == "cpu") return kCpu;
  if (text == "meta") return kMeta;
  if (text == "cuda") return {DeviceKind::kCuda, 0};
  if (text.starts_with("cuda:")) {
    int index = 0;
    const auto [end, error] = std::from_chars(text.data() + 5, text.data() + text.size(), index);
    if (error == std::errc() && end == text.data() + text.size() && index >= 0 && text.size() > 5)
      return {DeviceKind::kCuda, index};
  }
  fail(ErrorCode::kUsage, "device \"{}\" is not known; use cpu, cuda or cuda:<index>", text);
}

}  // namespace pmetal
