// Greedy continuation with a cache: the smallest use of the KV store, for probes and tests.
#pragma once

#include <span>
#include <vector>

#include "models/model.h"

namespace pmetal::infer {

// n tokens after `prompt`, arg max each (lowest id on ties), no end token
std::vector<int32_t> generate_greedy(Context& ctx, models::Model& model, std::span<const int32_t> prompt, int64_t n);

// The same for many prompts at once, each until `stop` or `max_tokens`; the stop token is left out. Prompts run in
// groups of `group`, one ragged step per token.
std::vector<std::vector<int32_t>> generate_greedy(Context& ctx, models::Model& model,
                                                  std::span<const std::vector<int32_t>> prompts, int64_t max_tokens,
                                                  int32_t stop, int64_t group = 64);

}  // namespace pmetal::infer
