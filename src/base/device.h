// Where bytes live. `meta` has shapes and no storage: the same code runs on it to plan memory.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

namespace pmetal {

enum class DeviceKind : uint8_t { kCpu, kCuda, kMeta };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  auto operator<=>(const Device&) const = default;
  bool is_cpu() const { return kind == DeviceKind::kCpu; }
  bool is_cuda() const { return kind == DeviceKind::kCuda; }
  bool is_meta() const { return kind == DeviceKind::kMeta; }
};

inline constexpr Device kCpu{DeviceKind::kCpu, 0};
inline constexpr Device kMeta{DeviceKind::kMeta, 0};

std::string to_string(Device device);        // "cpu", "cuda:1", "meta"
Device parse_device(std::string_view text);  // throws Error(kUsage) naming the accepted forms

}  // namespace pmetal
