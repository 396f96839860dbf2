// Asks the CUDA driver through dlopen, so that `info` works in a build without CUDA and on machines without a driver.
#include <dlfcn.h>

#include <memory>

#include <fmt/format.h>

#include "jobs/machine.h"

namespace pmetal::jobs {
namespace {

// values of CUdevice_attribute in the driver interface
constexpr int kMultiprocessorCount = 16, kMemoryClockKhz = 36, kMemoryBusBits = 37, kComputeMajor = 75,
              kComputeMinor = 76;

class Driver {
 public:
  Driver() : library_(::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL), &::dlclose) {}
  bool is_open() const { return library_ != nullptr; }

  template <class... Args>
  int call(const char* name, Args... args) const {
    const auto function = reinterpret_cast<int (*)(Args...)>(::dlsym(library_.get(), name));
    constexpr int kNotFound = 500;  // CUDA_ERROR_NOT_FOUND
    return function != nullptr ? function(args...) : kNotFound;
  }
  int attribute(int which, int device) const {
    int value = 0;
    return call("cuDeviceGetAttribute", &value, which, device) == 0 ? value : 0;
  }

 private:
  std::unique_ptr<void, int (*)(void*)> library_;
};

int64_t free_memory(const Driver& driver, int device) {
  void* context = nullptr;
  size_t free_bytes = 0, total_bytes = 0;
  if (driver.call("cuDevicePrimaryCtxRetain", &context, device) != 0) return -1;
  const bool ok = driver.call("cuCtxPushCurrent_v2", context) == 0 &&
                  driver.call("cuMemGetInfo_v2", &free_bytes, &total_bytes) == 0;
  void* popped = nullptr;
  driver.call("cuCtxPopCurrent_v2", &popped);
  driver.call("cuDevicePrimaryCtxRelease_v2", device);
  return ok ? static_cast<int64_t>(free_bytes) : -1;
}

}  // namespace

GpuReport read_gpu_report(bool with_free_memory) {
  GpuReport report;
  const Driver driver;
  if (!driver.is_open()) {
    report.note = "no NVIDIA driver (libcuda.so.1)";
    return report;
  }
  if (const int status = driver.call("cuInit", 0u); status != 0) {
    report.note = fmt::format("the NVIDIA driver does not start (cuInit: error {})", status);
    return report;
  }
  driver.call("cuDriverGetVersion", &report.driver_version);
  int n_devices = 0;
  driver.call("cuDeviceGetCount", &n_devices);
  if (n_devices == 0) report.note = "the NVIDIA driver shows no GPU";
  for (int device = 0; device < n_devices; ++device) {
    GpuInfo gpu;
    gpu.index = device;
    char name[256] = {};
    if (driver.call("cuDeviceGetName", &name[0], static_cast<int>(sizeof name), device) == 0) gpu.name = name;
    size_t bytes = 0;
    if (driver.call("cuDeviceTotalMem_v2", &bytes, device) == 0) gpu.memory_total = static_cast<int64_t>(bytes);
    gpu.compute_major = driver.attribute(kComputeMajor, device);
    gpu.compute_minor = driver.attribute(kComputeMinor, device);
    gpu.multiprocessors = driver.attribute(kMultiprocessorCount, device);
    // two transfers per clock, bits to bytes, kHz to GB/s
    gpu.bandwidth_gb_s =
        2.0 * driver.attribute(kMemoryClockKhz, device) * driver.attribute(kMemoryBusBits, device) / 8.0 / 1e6;
    for (int other = 0; other < n_devices; ++other) {
      int can = 0;
      if (other != device && driver.call("cuDeviceCanAccessPeer", &can, device, other) == 0 && can != 0)
        gpu.peers.push_back(other);
    }
    if (with_free_memory) gpu.memory_free = free_memory(driver, device);
    report.gpus.push_back(std::move(gpu));
  }
  return report;
}

}  // namespace pmetal::jobs
