#include "infer/sampling_params.h"

#include <cmath>

#include "base/error.h"

namespace pmetal::infer {
namespace {

constexpr size_t kMaxLogitBias = 1024;  // the limit of the OpenAI protocol
constexpr int32_t kMaxLogprobs = 1000;

void in_range(const char* name, double value, double low, double high) {
  if (!(value >= low && value <= high))  // NaN fails too
    fail(ErrorCode::kUsage, "{}: must be {}..{}, is {}", name, low, high, value);
}
void above(const char* name, double value, double low, double high) {
  if (!(value > low && value <= high))
    fail(ErrorCode::kUsage, "{}: must be above {} and at most {}, is {}", name, low, high, value);
}
void is_token(const char* name, int64_t id, int64_t vocabulary) {
  if (id < 0 || id >= vocabulary)
    fail(ErrorCode::kUsage, "{}: token id {} is outside the vocabulary of {}", name, id, vocabulary);
}

}  // namespace

void validate(const SamplingParams& p, int64_t vocabulary) {
  constexpr double kLarge = 1e6;
  in_range("temperature", p.temperature, 0, 100);
  if (const auto& d = p.dynamic_temperature) {
    in_range("dynamic_temperature.min", d->min, 0, 100);
    in_range("dynamic_temperature.max", d->max, d->min, 100);
    above("dynamic_temperature.exponent", d->exponent, 0, kLarge);
  }
  in_range("top_n_sigma", p.top_n_sigma, 0, kLarge);
  if (p.top_k < -1) fail(ErrorCode::kUsage, "top_k: must be -1 or more, is {}", p.top_k);
  above("typical_p", p.typical_p, 0, 1);
  above("top_p", p.top_p, 0, 1);
  in_range("min_p", p.min_p, 0, 1);
  in_range("epsilon_cutoff", p.epsilon_cutoff, 0, 1);
  in_range("eta_cutoff", p.eta_cutoff, 0, 1);
  if (p.min_tokens_to_keep < 1)
    fail(ErrorCode::kUsage, "min_tokens_to_keep: must be 1 or more, is {}", p.min_tokens_to_keep);
  in_range("xtc_probability", p.xtc.probability, 0, 1);
  in_range("xtc_threshold", p.xtc.threshold, 0, 1);
  if (p.mirostat) {
    above("mirostat_tau", p.mirostat->tau, 0, kLarge);
    in_range("mirostat_eta", p.mirostat->eta, 0, kLarge);
  }
  above("repetition_penalty", p.repetition_penalty, 0, kLarge);
  in_range("frequency_penalty", p.frequency_penalty, -kLarge, kLarge);
  in_range("presence_penalty", p.presence_penalty, -kLarge, kLarge);
  in_range("dry_multiplier", p.dry.multiplier, 0, kLarge);
  if (p.dry.multiplier > 0) in_range("dry_base", p.dry.base, 1, kLarge);
  for (const auto& [name, value] :
       {std::pair{"penalty_last_n", p.penalty_last_n}, std::pair{"dry_allowed_length", p.dry.allowed_length},
        std::pair{"dry_window", p.dry.window}, std::pair{"no_repeat_ngram", p.no_repeat_ngram},
        std::pair{"min_tokens", p.min_tokens}})
    if (value < 0) fail(ErrorCode::kUsage, "{}: must be 0 or more, is {}", name, value);
  if (p.logit_bias.size() > kMaxLogitBias)
    fail(ErrorCode::kUsage, "logit_bias: {} entries; at most {} are taken", p.logit_bias.size(), kMaxLogitBias);
  for (const auto& [id, bias] : p.logit_bias) {
    is_token("logit_bias", id, vocabulary);
    if (!std::isfinite(bias)) fail(ErrorCode::kUsage, "logit_bias: the bias of token {} is {}", id, bias);
  }
  for (const SequenceBias& s : p.sequence_bias) {
    if (s.ids.empty()) fail(ErrorCode::kUsage, "sequence_bias: an entry without token ids");
    for (int32_t id : s.ids) is_token("sequence_bias", id, vocabulary);
    if (std::isnan(s.bias) || s.bias == INFINITY) fail(ErrorCode::kUsage, "sequence_bias: a bias of {}", s.bias);
  }
  for (int32_t id : p.banned) is_token("banned", id, vocabulary);
  if (p.allowed) {
    if (p.allowed->empty()) fail(ErrorCode::kUsage, "allowed_token_ids: the list is empty; nothing could be drawn");
    for (int32_t id : *p.allowed) is_token("allowed_token_ids", id, vocabulary);
  }
  if (p.logprobs < 0 || p.logprobs > kMaxLogprobs)
    fail(ErrorCode::kUsage, "top_logprobs: must be 0..{}, is {}", kMaxLogprobs, p.logprobs);
}

}  // namespace pmetal::infer
