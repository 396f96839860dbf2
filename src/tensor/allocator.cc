#include "tensor/allocator.h"

#include <sys/mman.h>

#include <bit>
#include <map>
#include <mutex>
#include <vector>

#include "base/error.h"

namespace pmetal {
namespace {

// Blocks are rounded up to 1/8 of their power of two (at most 12.5 % waste), at least 256 bytes.
int64_t size_class(int64_t bytes) {
  if (bytes <= 256) return 256;
  const int64_t step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes - 1))) / 8;
  return (bytes + step - 1) / step * step;
}

constexpr int64_t kRegionBytes = int64_t{16} << 20, kRegionFrom = int64_t{128} << 10, kRegionTo = int64_t{4} << 20;

// Where buffers without bytes lie: an address that tells "present" from "absent" and can be neither read nor written.
std::byte* meta_address() {
  static void* const page = mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  PMETAL_ASSERT(page != MAP_FAILED);
  return static_cast<std::byte*>(page);
}

class CachingAllocator final : public Allocator, public std::enable_shared_from_this<CachingAllocator> {
 public:
  explicit CachingAllocator(Device device) : device_(device) {}
  Device device() const override { return device_; }

  Buffer allocate(int64_t size_bytes) override {
    const int64_t size = size_class(size_bytes);
    Buffer block;
    {
      std::lock_guard lock(mutex_);
      auto& list = free_[size];
      if (!list.empty()) {
        block = std::move(list.back());
        list.pop_back();
      }
    }
    if (!block) {
      std::lock_guard lock(mutex_);
      block = device_.is_meta() ? Buffer(std::make_shared<int>(0), meta_address(), size, device_) : from_system(size);
      stats_.reserved_bytes += size;
    }
    {
      std::lock_guard lock(mutex_);
      stats_.current_bytes += size;
      stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.current_bytes);
    }
    std::byte* data = block.data();
    // The deleter holds the block; when the last user lets go it returns to the list.
    std::shared_ptr<void> owner(static_cast<void*>(this), [self = shared_from_this(), block, size](void*) mutable {
      self->give_back(std::move(block), size);
    });
    return Buffer(std::move(owner), data, size, device_);
  }

  AllocatorStats stats() const override {
    std::lock_guard lock(mutex_);
    return stats_;
  }
  void reset_peak() override {
    std::lock_guard lock(mutex_);
    stats_.peak_bytes = stats_.current_bytes;
  }
  void release_cached() override {
    std::map<int64_t, std::vector<Buffer>> dropped;
    std::lock_guard lock(mutex_);
    dropped.swap(free_);
    region_ = Buffer();
    for (const auto& [size, list] : dropped) stats_.reserved_bytes -= size * static_cast<int64_t>(list.size());
  }

 private:
  // Blocks of middle size are cut from regions of huge pages: a product walks many of them at once, and each would
  // otherwise be hundreds of pages to translate.
  Buffer from_system(int64_t size) {
    if (size < kRegionFrom || size >= kRegionTo) return allocate_host(size);
    if (!region_ || region_.size_bytes() < size) region_ = allocate_host(kRegionBytes);
    const Buffer block = region_.slice(0, size);
    const int64_t lines = (size + 63) / 64 * 64;
    region_ = region_.slice(lines, region_.size_bytes() - lines);
    return block;
  }

  void give_back(Buffer block, int64_t size) {
    std::lock_guard lock(mutex_);
    stats_.current_bytes -= size;
    free_[size].push_back(std::move(block));
  }

  Device device_;
  mutable std::mutex mutex_;
  std::map<int64_t, std::vector<Buffer>> free_;
  Buffer region_;  // what is left of the newest
  AllocatorStats stats_;
};

}  // namespace

std::shared_ptr<Allocator> make_cpu_allocator() { return std::make_shared<CachingAllocator>(kCpu); }
std::shared_ptr<Allocator> make_meta_allocator() { return std::make_shared<CachingAllocator>(kMeta); }

}  // namespace pmetal
