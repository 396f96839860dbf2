// Sampler: from one row of f32 logits to one token. The order is: masks, bias, penalties, then the arg max for
// temperature 0, else temperature, top-n-sigma, top-k, typical, top-p, min-p, epsilon and eta cuts, XTC (mirostat
// replaces these filters), draw. Noise is a pure function of (seed, stream, position, token id), so a token does not
// depend on batch mates, chunking or preemption, and there is no generator state.
#pragma once

#include <span>
#include <vector>

#include "base/rng.h"
#include "infer/filters.h"
#include "infer/sampling_params.h"
#include "infer/token_history.h"
#include "ops/draw.h"

namespace pmetal::infer {

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;
};

struct Sampled {
  int32_t id = 0;
  float logprob = 0;              // filled when the parameters want logprobs
  std::vector<TokenLogprob> top;  // by value, then lower id
};

// What the sampler must know of the sequence beside its tokens.
struct SamplerSetup {
  std::vector<int32_t> eos_ids = {};   // end a text for the model
  std::vector<int32_t> stop_ids = {};  // end it for this request as well
  uint32_t stream = 0;                 // index among several answers to one request
  int64_t vocabulary = 0;              // ids from here on are padding, never drawn; 0: there is none
};

class Sampler {
 public:
  // Parameters have passed validate().
  Sampler(SamplingParams params, std::span<const int32_t> prompt, SamplerSetup setup = {});

  // The next token; overwrites `logits` [vocabulary]. Does not append it: call accept(). Error(kNumerical) when the row
  // has NaN or +infinity, or no token may be drawn.
  Sampled sample(std::span<float> logits);
  // The same token from the largest logits alone, where they decide it: `top` is in any order, and every logit of the
  // row that it lacks is at most `rest_below`. Nothing where they do not; then the row itself is needed.
  std::optional<Sampled> sample_top(std::vector<Candidate> top, float rest_below, int64_t vocabulary);
  // how many of the largest logits sample_top() may do with; 0: the parameters want the whole row
  int64_t top_wanted() const;
  // How a device draws this token from the row (ops/draw.h), which is then the token that sample() gives. Nothing where
  // the parameters want more than temperature, top-p and min-p: penalties, bias and masks follow the history; the other
  // filters, mirostat and top-k order or sum candidates in ways that only whole rows, or their largest (sample_top),
  // decide.
  std::optional<ops::DrawRow> device_draw(int64_t vocabulary) const;
  void accept(int32_t id);

  // What the draw is made from: logits after all steps, -infinity for tokens that cannot be drawn; in place. For tests
  // and for processed logprobs.
  void process(std::span<float> logits);

  const SamplingParams& params() const { return params_; }
  const TokenHistory& history() const { return history_; }
  double mirostat_mu() const { return mu_; }

 private:
  void before_filters(std::span<float> logits) const;
  void filter(Candidates& candidates) const;
  void set_temperature(Candidates& candidates) const;
  int32_t draw(const Candidates& candidates) const;
  bool is_greedy() const;
  bool changes_logits() const;  // before the filters
  float noise_uniform(uint32_t token, RngPurpose purpose) const;

  SamplingParams params_;
  TokenHistory history_;
  SamplerSetup setup_;
  double mu_ = 0;         // mirostat's state
  double surprise_ = -1;  // of the token last drawn, until it is accepted
};

// Log-softmax of a row: the values of `ids`, or the n largest by value, then lower id.
class LogSoftmax {
 public:
  explicit LogSoftmax(std::span<const float> logits);
  float of(int32_t id) const;  // -9999 for a token that cannot be drawn
  std::vector<TokenLogprob> top(int64_t n) const;

 private:
  std::span<const float> logits_;
  double log_sum_ = 0;
};

int32_t arg_max(std::span<const float> logits);  // the lowest id on ties

// 64 random bits of the system, for requests without a seed
uint64_t random_seed();

}  // namespace pmetal::infer
