// Where tensors get their bytes: one caching allocator per device, with statistics. Freed blocks are kept by size class
// and reused, so a training step after the first allocates nothing from the system.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/buffer.h"

namespace pmetal {

struct AllocatorStats {
  int64_t current_bytes = 0;   // in live buffers
  int64_t peak_bytes = 0;      // largest current_bytes since reset_peak()
  int64_t reserved_bytes = 0;  // taken from the system, live or cached
};

class Allocator {
 public:
  virtual ~Allocator() = default;
  virtual Device device() const = 0;
  virtual Buffer allocate(int64_t size_bytes) = 0;  // not initialised; throws Error(kOutOfMemory)
  virtual AllocatorStats stats() const = 0;
  virtual void reset_peak() = 0;
  virtual void release_cached() = 0;
  // What the memory is meant for: an error for lack of it says so. Set before work begins.
  void set_plan(std::string plan) { plan_ = std::move(plan); }

 protected:
  std::string plan_;
};

std::shared_ptr<Allocator> make_cpu_allocator();
// counts bytes, has none: for plans and `inspect`
std::shared_ptr<Allocator> make_meta_allocator();

}  // namespace pmetal
