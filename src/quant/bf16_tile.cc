// bf16 packed for the matrix products of the CPU: [ceil(out/16)][ceil(in/32)][pair of in 16][out 16][2], blocks of
// 1 KiB, zero padded. A 64-byte line holds 16 outputs of one pair of inputs (operand of vdpbf16ps); a block is a B tile
// of AMX. Rows are written in whole groups of 16.
#include "quant/tile.h"

namespace pmetal::quant {
namespace {

constexpr int64_t kIn = 32, kBlockBytes = 1024;

int64_t group_bytes(int64_t in) { return (in + kIn - 1) / kIn * kBlockBytes; }

std::vector<PlaneLayout> layout(int64_t out, int64_t in) {
  return {{DType::kBF16, tile_groups(out) * group_bytes(in)}};
}

void encode_bf16(Weight& w, int64_t begin, int64_t end, const uint16_t* from) {
  for (int64_t row = begin; row < end; row += kTileRows) {
    const int64_t rows = std::min(kTileRows, end - row);
    std::byte* to = w.planes[0].bytes.data() + row / kTileRows * group_bytes(w.in);
    for (int64_t c = 0; c < w.in; c += kIn, to += kBlockBytes)
      transpose_block(reinterpret_cast<const std::byte*>(from + (row - begin) * w.in + c), w.in * 2, rows,
                      std::min(kIn, w.in - c) * 2, to);
  }
}

void encode(Weight& w, int64_t begin, int64_t end, const float* from) {
  std::vector<uint16_t> rows(static_cast<size_t>(kTileRows * w.in));
  for (int64_t row = begin; row < end; row += kTileRows) {
    const int64_t n = std::min(kTileRows, end - row);
    convert(from + (row - begin) * w.in, DType::kF32, rows.data(), DType::kBF16, n * w.in);
    encode_bf16(w, row, row + n, rows.data());
  }
}

void decode(const Weight& w, int64_t begin, int64_t end, float* to) {
  for (int64_t row = begin; row < end; ++row, to += w.in) {
    const std::byte* group = w.planes[0].bytes.data() + row / kTileRows * group_bytes(w.in);
    const BF16* values = reinterpret_cast<const BF16*>(group) + row % kTileRows * 2;
    for (int64_t c = 0; c < w.in; ++c) to[c] = to_f32(values[c / kIn * 512 + c % kIn / 2 * 32 + c % 2]);
  }
}

Format make() {
  Format f{};
  f.name = "bf16_tile";
  f.compute = DType::kBF16;
  f.row_cut = kTileRows;
  f.col_cut = kIn;
  f.is_dense = false;
  f.layout = layout;
  f.decode_rows = decode;
  f.encode_rows = encode;
  f.encode_rows_bf16 = encode_bf16;
  return f;
}

}  // namespace

extern const Format format_bf16_tile;
const Format format_bf16_tile = make();

}  // namespace pmetal::quant
