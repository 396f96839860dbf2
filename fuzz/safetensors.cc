// A safetensors file from anywhere: either Error, or views that lie in the file side by side and cover its data.
#include "formats/safetensors.h"

#include <cstring>

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pmetal;
  const Buffer file = allocate_host(static_cast<int64_t>(size));
  if (size > 0) std::memcpy(file.data(), data, size);
  try {
    const auto parsed = formats::SafetensorsFile::parse(file, "fuzz.safetensors");
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, data, sizeof header_bytes);
    const std::byte* expected = file.data() + 8 + header_bytes;
    for (const formats::TensorView& tensor : parsed.tensors()) {
      PMETAL_ASSERT(tensor.bytes.data() == expected, "{} does not follow the tensor before it", tensor.name);
      expected += tensor.bytes.size_bytes();
      int64_t n = 1;
      for (const int64_t d : tensor.shape) n *= d;
      PMETAL_ASSERT(n == tensor.n_elements() && n * size_of(tensor.dtype) == tensor.bytes.size_bytes(), "{}",
                    tensor.name);
      PMETAL_ASSERT(parsed.find(tensor.name) == &tensor, "{} is not found by its name", tensor.name);
    }
    PMETAL_ASSERT(expected == file.data() + size, "the views do not cover the file");
  } catch (const Error&) {
  }
  return 0;
}
