// The largest logits of each row, so that drawing a token needs no copy of the row: a few hundred (id, logit) pairs go
// to the host, where the sampler finishes exactly as it would from the row. What is given is a set, in no order.
#pragma once

#include <vector>

#include "tensor/kernel.h"

namespace pmetal::ops {

struct TopLogitsArgs {
  View logits;  // [rows, n] f32
  // [rows, 3 + 2 · capacity] i32: how many belong to the set, the bits of the largest logit, the last bin; then ids,
  // then bits of logits. More than fit: the count says so. -1: the row holds NaN or +infinity, or nothing but
  // -infinity.
  View out;
  int64_t want = 0, capacity = 0;
};
PMETAL_DECLARE_FUSED_KERNELS(top_logits, TopLogitsArgs)

struct TopLogits {
  struct Pair {
    int32_t id;
    float logit;
  };
  bool is_whole = false;    // false: look at the row itself
  std::vector<Pair> pairs;  // at least `want` of them, or all finite ones
  float rest_below = 0;     // every logit that is not among them is at most this
};
// One entry per row; empty where the device has no kernel (the CPU). Waits for the device.
std::vector<TopLogits> top_logits(Context& ctx, const Tensor& logits, int64_t rows, int64_t want);

}  // namespace pmetal::ops
