#include "tensor/allocator.h"

#include <bit>
#include <map>
#include <mutex>
#include <vector>

namespace pmetal {
namespace {

// Blocks are rounded up to 1/8 of their power of two (at most 12.5 % waste), at least 256 bytes.
int64_t size_class(int64_t bytes) {
  if (bytes <= 256) return 256;
  const int64_t step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes - 1))) / 8;
  return (bytes + step - 1) / step * step;
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
      block = device_.is_meta() ? Buffer(std::make_shared<int>(0), nullptr, size, device_) : allocate_host(size);
      std::lock_guard lock(mutex_);
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
    for (const auto& [size, list] : dropped) stats_.reserved_bytes -= size * static_cast<int64_t>(list.size());
  }

 private:
  void give_back(Buffer block, int64_t size) {
    std::lock_guard lock(mutex_);
    stats_.current_bytes -= size;
    free_[size].push_back(std::move(block));
  }

  Device device_;
  mutable std::mutex mutex_;
  std::map<int64_t, std::vector<Buffer>> free_;
  AllocatorStats stats_;
};

}  // namespace

std::shared_ptr<Allocator> make_cpu_allocator() { return std::make_shared<CachingAllocator>(kCpu); }
std::shared_ptr<Allocator> make_meta_allocator() { return std::make_shared<CachingAllocator>(kMeta); }

}  // namespace pmetal
