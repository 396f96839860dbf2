// Buffer: reference-counted bytes on a device. Tensors, weight planes and mapped file ranges are views of buffers.
// The owner decides how memory is given back (free, munmap, arena, device pool).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/device.h"

namespace pmetal {

class Buffer {
 public:
  Buffer() = default;
  // `owner` keeps the bytes alive; its deleter gives them back. On meta `data` may be null, and is never read.
  Buffer(std::shared_ptr<void> owner, std::byte* data, int64_t size_bytes, Device device)
      : owner_(std::move(owner)), data_(data), size_bytes_(size_bytes), device_(device) {}

  std::byte* data() const { return data_; }
  int64_t size_bytes() const { return size_bytes_; }
  Device device() const { return device_; }
  explicit operator bool() const { return owner_ != nullptr; }
  long use_count() const { return owner_.use_count(); }
  // bytes [offset, offset + size) of the same owner
  Buffer slice(int64_t offset, int64_t size_bytes) const {
    return Buffer(owner_, data_ ? data_ + offset : nullptr, size_bytes, device_);
  }
  const std::shared_ptr<void>& owner() const { return owner_; }

 private:
  std::shared_ptr<void> owner_;
  std::byte* data_ = nullptr;
  int64_t size_bytes_ = 0;
  Device device_ = kCpu;
};

// Host memory aligned to 64 bytes (2 MiB and huge-page advice from 4 MiB on, and at 2 MiB), not initialised.
// Throws Error(kOutOfMemory) with the size asked for.
Buffer allocate_host(int64_t size_bytes);

}  // namespace pmetal
