// Draws a token for each of some rows of logits on the device, after temperature, top-p and min-p: the token that
// minimises ln E - z, E exponentially distributed noise that is a pure function of (key, position, stream, id), as
// infer/sampler.cc draws. Where rounding could decide otherwise than there, the row says "undecided".
#pragma once

#include <array>
#include <span>
#include <vector>

#include "tensor/kernel.h"

namespace pmetal::ops {

struct DrawRow {
  int32_t row = 0;         // of the logits
  int32_t vocabulary = 0;  // ids from here on are never drawn
  std::array<uint32_t, 2> key = {};
  uint32_t position = 0, stream = 0;  // the noise of id v: word v % 4 of philox(key, {v / 4, position, stream, 0})
  float temperature = 1;
  int32_t unused = 0;
  double top_p = 1;      // 1: off
  double log_min_p = 0;  // ln min_p; 0: off
};

struct DrawArgs {
  View logits;  // [rows, n] f32
  View rows;    // [draws, sizeof(DrawRow)] u8
  View out;     // [draws] i32: a token, or -1
  bool has_top_p = false;
};
PMETAL_DECLARE_FUSED_KERNELS(draw, DrawArgs)

// A token for each of `rows`, -1 where it must be drawn from the row itself; empty where the device has no kernel (the
// CPU). Waits for the device.
std::vector<int32_t> draw(Context& ctx, const Tensor& logits, std::span<const DrawRow> rows);

}  // namespace pmetal::ops
