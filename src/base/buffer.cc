#include "base/buffer.h"

#include <sys/mman.h>

#include <cstdlib>

#include "base/error.h"

namespace pmetal {
namespace {
constexpr int64_t kHugePage = int64_t{2} << 20;
}

Buffer allocate_host(int64_t size_bytes) {
  PMETAL_ASSERT(size_bytes >= 0, "size {}", size_bytes);
  const int64_t alignment = size_bytes == kHugePage || size_bytes >= 2 * kHugePage ? kHugePage : 64;
  const int64_t padded = (std::max<int64_t>(size_bytes, 1) + alignment - 1) / alignment * alignment;
  void* data = std::aligned_alloc(static_cast<size_t>(alignment), static_cast<size_t>(padded));
  if (!data)
    fail(ErrorCode::kOutOfMemory, "cannot allocate {} bytes of host memory; use a smaller batch, sequence or model",
         size_bytes);
  if (alignment == kHugePage) madvise(data, static_cast<size_t>(padded), MADV_HUGEPAGE);
  return Buffer(std::shared_ptr<void>(data, std::free), static_cast<std::byte*>(data), size_bytes, kCpu);
}

}  // namespace pmetal
