// What a request may ask of the sampler. Every default is off; a disabled setting is exactly no operation.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace pmetal::infer {

// Added to the last id when the ids before it end the sequence; -infinity bans it (bad words).
struct SequenceBias {
  std::vector<int32_t> ids;
  float bias = -std::numeric_limits<float>::infinity();
};

// T = min + (max - min) (H / ln N)^exponent, H the entropy of the distribution, N the number of possible tokens
struct DynamicTemperature {
  float min = 0, max = 0, exponent = 1;
};

struct Xtc {
  float probability = 0;           // how often per position; 0 = off
  float threshold = 0.1f;          // of tokens at least this likely all but the least likely go; > 0.5 = off
  std::vector<int32_t> keep = {};  // never taken out (end tokens, newline)
};

struct Dry {
  float multiplier = 0;  // 0 = off
  float base = 1.75f;
  int64_t allowed_length = 2;          // shorter repeats cost nothing
  std::vector<int32_t> breakers = {};  // a repeat does not reach across these
  int64_t window = 0;                  // last tokens that are looked at; 0 = all
};

struct Mirostat {  // version 2; replaces every filter but the temperature
  float tau = 5, eta = 0.1f;
};

enum class SamplerOrder : uint8_t {
  kPmetal,  // temperature before the filters, as Hugging Face and vLLM
  kLlama,   // temperature last, as llama.cpp
};

enum class LogprobsMode : uint8_t { kRaw, kProcessed };  // of the model's logits, or of what is drawn from

struct SamplingParams {
  float temperature = 1;  // below 1e-5: always the likeliest token, the lowest id on ties
  std::optional<DynamicTemperature> dynamic_temperature = {};
  float top_n_sigma = 0;  // keep z >= max - n sigma; 0 = off
  int64_t top_k = 0;      // <= 0: off
  float typical_p = 1;    // 1 = off
  float top_p = 1;        // 1 = off
  float min_p = 0;        // 0 = off
  float epsilon_cutoff = 0, eta_cutoff = 0;
  int64_t min_tokens_to_keep = 1;  // by top-p, typical, min-p, epsilon and eta
  Xtc xtc = {};
  std::optional<Mirostat> mirostat = {};
  SamplerOrder order = SamplerOrder::kPmetal;

  float repetition_penalty = 1;  // over prompt and output
  float frequency_penalty = 0, presence_penalty = 0;
  int64_t penalty_last_n = 0;         // tokens that count; 0 = all
  bool penalties_see_prompt = false;  // frequency and presence: output only (OpenAI, vLLM), or the prompt too
  Dry dry = {};
  int64_t no_repeat_ngram = 0;  // 0 = off
  std::vector<std::pair<int32_t, float>> logit_bias = {};
  std::vector<SequenceBias> sequence_bias = {};
  std::vector<int32_t> banned = {};
  std::optional<std::vector<int32_t>> allowed = {};  // all others are banned

  int64_t min_tokens = 0;   // no stop id before that many
  bool ignore_eos = false;  // never an end token

  uint64_t seed = 0;
  int32_t logprobs = 0;  // top tokens reported beside the drawn one
  bool wants_logprobs = false;
  LogprobsMode logprobs_mode = LogprobsMode::kRaw;
};

// Error(kUsage) naming field, value and what is allowed. Run before a request is queued.
void validate(const SamplingParams& params, int64_t vocabulary);

}  // namespace pmetal::infer
