// Where the time of a forward pass goes: each block run and timed by itself.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "models/model.h"

namespace pmetal::infer {

struct LayerTime {
  std::string name;                      // "embed", "layer 0" ..., "final", "head"
  double prefill_ms = 0, decode_ms = 0;  // of the prompt at once; of one token after it, mean of several
};

std::vector<LayerTime> profile_layers(Context& ctx, models::Model& model, std::span<const int32_t> prompt);

}  // namespace pmetal::infer
