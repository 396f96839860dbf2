// Greedy continuation with a cache: the smallest use of the KV store, for probes and tests.
#pragma once

#include <span>
#include <vector>

#include "models/model.h"

namespace pmetal::infer {

// n tokens after `prompt`, arg max each (lowest id on ties), no end token
std::vector<int32_t> generate_greedy(Context& ctx, models::Model& model, std::span<const int32_t> prompt, int64_t n);

}  // namespace pmetal::infer
