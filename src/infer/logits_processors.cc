#include "infer/logits_processors.h"

#include <algorithm>
#include <cmath>

namespace pmetal::infer {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();

float& at(std::span<float> logits, int32_t id) { return logits[static_cast<size_t>(id)]; }
bool inside(std::span<float> logits, int32_t id) { return id >= 0 && static_cast<size_t>(id) < logits.size(); }

// whether the tokens before the last one of `ids` end the history
bool is_next(const SequenceBias& s, const TokenHistory& history) {
  const std::vector<int32_t>& tokens = history.tokens();
  const size_t n = s.ids.size() - 1;
  return n <= tokens.size() && std::equal(s.ids.begin(), s.ids.begin() + static_cast<std::ptrdiff_t>(n),
                                          tokens.end() - static_cast<std::ptrdiff_t>(n));
}

}  // namespace

void apply_masks(std::span<float> logits, const SamplingParams& p, const TokenHistory& history,
                 std::span<const int32_t> eos_ids, std::span<const int32_t> stop_ids) {
  if (p.allowed) {
    std::vector<std::pair<int32_t, float>> kept;
    for (int32_t id : *p.allowed) kept.emplace_back(id, at(logits, id));
    std::fill(logits.begin(), logits.end(), kBanned);
    for (const auto& [id, z] : kept) at(logits, id) = z;
  }
  for (int32_t id : p.banned) at(logits, id) = kBanned;
  for (const SequenceBias& s : p.sequence_bias)
    if (s.bias == kBanned && is_next(s, history)) at(logits, s.ids.back()) = kBanned;
  const auto ban = [&](std::span<const int32_t> ids) {
    for (int32_t id : ids)
      if (inside(logits, id)) at(logits, id) = kBanned;
  };
  if (p.ignore_eos) ban(eos_ids);
  if (history.output_length() < p.min_tokens) {
    ban(eos_ids);
    ban(stop_ids);
  }
}

void apply_bias(std::span<float> logits, const SamplingParams& p, const TokenHistory& history) {
  for (const auto& [id, bias] : p.logit_bias) at(logits, id) += bias;
  for (const SequenceBias& s : p.sequence_bias)
    if (s.bias != kBanned && is_next(s, history)) at(logits, s.ids.back()) += s.bias;
}

void apply_penalties(std::span<float> logits, const SamplingParams& p, const TokenHistory& history) {
  const bool repetition = p.repetition_penalty != 1;
  if (!repetition && p.frequency_penalty == 0 && p.presence_penalty == 0) return;
  for (const auto& [id, count] : history.counts()) {
    if (!inside(logits, id)) continue;
    float& z = at(logits, id);
    if (repetition) z = z > 0 ? z / p.repetition_penalty : z * p.repetition_penalty;
    const int64_t n = p.penalties_see_prompt ? count.all : count.output;
    if (n > 0) {
      z -= p.frequency_penalty * static_cast<float>(n);
      z -= p.presence_penalty;
    }
  }
}

void apply_dry(std::span<float> logits, const Dry& dry, std::span<const int32_t> tokens) {
  if (dry.multiplier == 0) return;
  const size_t window = dry.window > 0 ? std::min(tokens.size(), static_cast<size_t>(dry.window)) : tokens.size();
  // r: the window from its end backwards. z[j] = how far r and r shifted by j agree (Z-function) is the length of the
  // repeat that r[j - 1], the token after the earlier occurrence, would prolong.
  std::vector<int32_t> r(tokens.rbegin(), tokens.rbegin() + static_cast<std::ptrdiff_t>(window));
  const auto is_breaker = [&](int32_t id) {
    return std::find(dry.breakers.begin(), dry.breakers.end(), id) != dry.breakers.end();
  };
  const size_t reach = static_cast<size_t>(std::find_if(r.begin(), r.end(), is_breaker) - r.begin());
  std::vector<size_t> z(r.size(), 0);
  std::unordered_map<int32_t, size_t> longest;
  for (size_t j = 1, left = 0, right = 0; j < r.size(); ++j) {
    if (j < right) z[j] = std::min(right - j, z[j - left]);
    while (j + z[j] < r.size() && r[z[j]] == r[j + z[j]]) ++z[j];
    if (j + z[j] > right) {
      left = j;
      right = j + z[j];
    }
    const size_t length = std::min(z[j], reach);
    if (length > 0 && length >= static_cast<size_t>(dry.allowed_length)) {
      size_t& best = longest[r[j - 1]];
      best = std::max(best, length);
    }
  }
  const double limit = dry.base > 1 ? 88.7 / std::log(static_cast<double>(dry.base)) : 0;  // f32 would overflow
  for (const auto& [id, length] : longest) {
    if (!inside(logits, id)) continue;
    const double exponent = std::min(static_cast<double>(length) - static_cast<double>(dry.allowed_length), limit);
    at(logits, id) -= static_cast<float>(dry.multiplier * std::pow(static_cast<double>(dry.base), exponent));
  }
}

void apply_no_repeat_ngram(std::span<float> logits, int64_t n, std::span<const int32_t> tokens) {
  const auto length = static_cast<int64_t>(tokens.size());
  if (n <= 0 || length < n) return;
  const std::span<const int32_t> tail = tokens.subspan(static_cast<size_t>(length - (n - 1)));
  for (int64_t i = 0; i + n <= length; ++i) {
    const std::span<const int32_t> earlier = tokens.subspan(static_cast<size_t>(i), static_cast<size_t>(n));
    if (std::equal(tail.begin(), tail.end(), earlier.begin()) && inside(logits, earlier.back()))
      at(logits, earlier.back()) = kBanned;
  }
}

}  // namespace pmetal::infer
