// f32 packed for the matrix products of the CPU: [ceil(out/16)][in][out 16], zero padded: a 64-byte line holds 16
// outputs of one input. Rows are written in whole groups of 16.
#include "quant/tile.h"

namespace pmetal::quant {
namespace {

constexpr int64_t kIn = 16, kLine = 64;

std::vector<PlaneLayout> layout(int64_t out, int64_t in) { return {{DType::kF32, tile_groups(out) * in * kLine}}; }

void encode(Weight& w, int64_t begin, int64_t end, const float* from) {
  alignas(64) std::byte block[kIn * kLine];
  for (int64_t row = begin; row < end; row += kTileRows) {
    const int64_t rows = std::min(kTileRows, end - row);
    std::byte* to = w.planes[0].bytes.data() + row / kTileRows * w.in * kLine;
    for (int64_t c = 0; c < w.in; c += kIn, to += sizeof block) {
      const int64_t width = std::min(kIn, w.in - c);
      transpose_block(reinterpret_cast<const std::byte*>(from + (row - begin) * w.in + c), w.in * 4, rows, width * 4,
                      block);
      std::memcpy(to, block, static_cast<size_t>(width * kLine));
    }
  }
}

void decode(const Weight& w, int64_t begin, int64_t end, float* to) {
  for (int64_t row = begin; row < end; ++row, to += w.in) {
    const float* values =
        reinterpret_cast<const float*>(w.planes[0].bytes.data() + row / kTileRows * w.in * kLine) + row % kTileRows;
    for (int64_t c = 0; c < w.in; ++c) to[c] = values[c * kTileRows];
  }
}

Format make() {
  Format f{};
  f.name = "f32_panel";
  f.compute = DType::kF32;
  f.row_cut = kTileRows;
  f.col_cut = 1;
  f.is_dense = false;
  f.layout = layout;
  f.decode_rows = decode;
  f.encode_rows = encode;
  return f;
}

}  // namespace

extern const Format format_f32_panel;
const Format format_f32_panel = make();

}  // namespace pmetal::quant
