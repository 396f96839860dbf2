// How well a model foretells a text: negative log-likelihood of the tokens that are scored.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/model.h"

namespace pmetal::infer {

struct ScoredSequence {
  std::span<const int32_t> tokens;
  // beside each token: the token where it is scored, a negative number where not. The first is never scored.
  std::span<const int32_t> labels;
};

struct Likelihood {
  double nll = 0;                   // nats
  int64_t tokens = 0, correct = 0;  // scored; of these the model's first choice
  double mean() const { return nll / static_cast<double>(tokens); }
  double perplexity() const;
  void add(const Likelihood& other);
};

// One forward over the sequences.
Likelihood score(Context& ctx, models::Model& model, std::span<const ScoredSequence> sequences);

struct TextWindow {
  int64_t begin = 0, length = 0;
  int64_t first_scored = 1;  // position in the window
};
// Windows of `length` tokens over a text of n tokens. stride 0: without overlap, positions 1.. of each scored, the rest
// dropped. Otherwise they begin every `stride` tokens, each token but the first is scored once, with as many before it
// as the windows allow, and the last window may be shorter.
std::vector<TextWindow> text_windows(int64_t n, int64_t length, int64_t stride);

}  // namespace pmetal::infer
