// quant::Weight: what nn::Linear, nn::Embedding and nn::ExpertLinear hold: a format, a logical shape and planes of
// bytes. Dense bf16 is the format with one plane; a layout repacked for a kernel is a format too and replaces the
// planes.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "base/dtype.h"

namespace pmetal {
class ThreadPool;
}

namespace pmetal::quant {

struct Plane {
  Buffer bytes;
  DType dtype = DType::kU8;
};

struct Format;

// Logical matrix [out, in], row-major in meaning: y = W x.
struct Weight {
  const Format* format = nullptr;
  int64_t out = 0, in = 0;
  std::vector<Plane> planes;
  uint64_t version = 0;  // grows when the values change: part of prefix-cache keys and graph guards
  int64_t row_step = 0;  // dense, on a GPU: elements between rows where that is not `in` (ops/lora_group.h)

  bool defined() const { return format != nullptr; }
  Device device() const { return planes.empty() ? kCpu : planes[0].bytes.device(); }
  int64_t size_bytes() const {
    int64_t n = 0;
    for (const Plane& p : planes) n += p.bytes.size_bytes();
    return n;
  }
};

struct PlaneLayout {
  DType dtype;
  int64_t size_bytes;
};

// One file per format: src/quant/<name>.cc defines `const Format format_<name>`.
struct Format {
  std::string_view name;     // what a user types and `list` prints
  DType compute;             // dtype that activations have beside it by default
  int64_t row_cut, col_cut;  // a shard border may lie at multiples of these
  bool is_dense;             // every value is stored as is (f32, bf16, f16): trainable, savable as safetensors
  std::vector<PlaneLayout> (*layout)(int64_t out, int64_t in);
  // rows [begin, end) as f32 [end - begin, in]
  void (*decode_rows)(const Weight&, int64_t begin, int64_t end, float* to);
  // writes rows [begin, end) of an allocated weight from f32; null: read-only format
  void (*encode_rows)(Weight&, int64_t begin, int64_t end, const float* from);
  // same from bf16 without a detour, where the format is no narrower than bf16; may be null
  void (*encode_rows_bf16)(Weight&, int64_t begin, int64_t end, const uint16_t* from) = nullptr;
};

std::span<const Format* const> formats();
const Format& format(std::string_view name);  // throws Error(kUsage) naming the known ones

// Planes on the host, not initialised.
Weight allocate(const Format& format, int64_t out, int64_t in);
// The same values in another format. `release` (may be null) is called with each finished row range of `from`, so that
// a mapped source can drop its pages: loading never holds a second copy.
Weight repack(const Weight& from, const Format& to, ThreadPool& threads,
              void (*release)(const Weight&, int64_t, int64_t) = nullptr);

}  // namespace pmetal::quant
