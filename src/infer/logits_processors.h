// What changes logits before anything is drawn, in the sampler's order: bans, biases, penalties. Each works in place on
// one row of f32 logits; -infinity = cannot be drawn.
#pragma once

#include <span>

#include "infer/sampling_params.h"
#include "infer/token_history.h"

namespace pmetal::infer {

// allowed and banned ids, sequence bans, and `stop_ids` while the output is shorter than min_tokens (`eos_ids` always
// under ignore_eos)
void apply_masks(std::span<float> logits, const SamplingParams& params, const TokenHistory& history,
                 std::span<const int32_t> eos_ids, std::span<const int32_t> stop_ids);
// logit_bias and finite sequence biases: additions, so what is banned stays banned
void apply_bias(std::span<float> logits, const SamplingParams& params, const TokenHistory& history);
// repetition (CTRL, arXiv 1909.05858), then frequency and presence
void apply_penalties(std::span<float> logits, const SamplingParams& params, const TokenHistory& history);
// "don't repeat yourself": z[v] -= multiplier * base^(l - allowed_length), l the longest repeat that v would prolong
void apply_dry(std::span<float> logits, const Dry& dry, std::span<const int32_t> tokens);
// bans every token that would complete an n-gram already there
void apply_no_repeat_ngram(std::span<float> logits, int64_t n, std::span<const int32_t> tokens);

}  // namespace pmetal::infer
