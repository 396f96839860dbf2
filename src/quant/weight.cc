#include "quant/weight.h"

#include <vector>

#include "base/error.h"
#include "base/threads.h"

namespace pmetal::quant {

#define X(stem) extern const Format format_##stem;
#include "quant/formats.inc"
#undef X

std::span<const Format* const> formats() {
#define X(stem) &format_##stem,
  static const Format* const table[] = {
#include "quant/formats.inc"
  };
#undef X
  return table;
}

const Format& format(std::string_view name) {
  std::string known;
  for (const Format* f : formats()) {
    if (f->name == name) return *f;
    known += (known.empty() ? "" : ", ") + std::string(f->name);
  }
  fail(ErrorCode::kUsage, "weight format \"{}\" is not known; known: {}", name, known);
}

Weight allocate(const Format& format, int64_t out, int64_t in) {
  Weight w{&format, out, in, {}, 0};
  for (const PlaneLayout& p : format.layout(out, in)) w.planes.push_back({allocate_host(p.size_bytes), p.dtype});
  return w;
}

Weight repack(const Weight& from, const Format& to, ThreadPool& threads,
              void (*release)(const Weight&, int64_t, int64_t)) {
  PMETAL_ASSERT(to.encode_rows, "{} cannot be written", to.name);
  Weight w = allocate(to, from.out, from.in);
  w.version = from.version;
  const int64_t block = std::max<int64_t>(to.row_cut, 64);
  const bool direct = from.format->name == "bf16" && to.encode_rows_bf16;
  threads.parallel_for(from.out, block, [&](int64_t begin, int64_t end) {
    std::vector<float> rows(direct ? 0 : static_cast<size_t>(block * from.in));
    for (int64_t r = begin; r < end; r += block) {
      const int64_t last = std::min(end, r + block);
      if (direct) {
        to.encode_rows_bf16(w, r, last, reinterpret_cast<const uint16_t*>(from.planes[0].bytes.data()) + r * from.in);
      } else {
        from.format->decode_rows(from, r, last, rows.data());
        to.encode_rows(w, r, last, rows.data());
      }
      if (release) release(from, r, last);
    }
  });
  return w;
}

}  // namespace pmetal::quant
