// The GPU's SM clock while a benchmark runs, through the driver's own library where that is found.
#pragma once

#include <dlfcn.h>

#include <algorithm>
#include <vector>

namespace pmetal {

class SmClock {
 public:
  explicit SmClock(unsigned device) {
    void* library = ::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    const auto init = reinterpret_cast<int (*)()>(::dlsym(library, "nvmlInit_v2"));
    const auto handle = reinterpret_cast<int (*)(unsigned, void**)>(::dlsym(library, "nvmlDeviceGetHandleByIndex_v2"));
    clock_ = reinterpret_cast<int (*)(void*, int, unsigned*)>(::dlsym(library, "nvmlDeviceGetClockInfo"));
    if (!init || !handle || init() != 0 || handle(device, &device_) != 0) clock_ = nullptr;
  }
  void sample() {
    constexpr int kSm = 1;
    unsigned mhz = 0;
    if (clock_ && clock_(device_, kSm, &mhz) == 0) samples_.push_back(mhz);
  }
  void clear() { samples_.clear(); }
  unsigned median_mhz() {  // 0: not known
    if (samples_.empty()) return 0;
    std::nth_element(samples_.begin(), samples_.begin() + static_cast<long>(samples_.size() / 2), samples_.end());
    return samples_[samples_.size() / 2];
  }

 private:
  int (*clock_)(void*, int, unsigned*) = nullptr;
  void* device_ = nullptr;
  std::vector<unsigned> samples_;
};

}  // namespace pmetal
