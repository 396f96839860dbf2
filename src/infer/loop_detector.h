// Finds out that a text goes round in circles: for every period p up to 64 the length of the current run with
// x[n] = x[n - p]. A loop is at least four rounds and at least 32 tokens.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace pmetal::infer {

class LoopDetector {
 public:
  static constexpr int64_t kMaxPeriod = 64;
  static constexpr int64_t kMinRounds = 4, kMinTokens = 32;

  // true when the tokens so far end in a loop
  bool push(int32_t id) {
    bool found = false;
    for (int64_t p = 1; p <= kMaxPeriod; ++p) {
      int64_t& run = run_[static_cast<size_t>(p - 1)];
      run = n_ >= p && recent_[static_cast<size_t>((n_ - p) % kMaxPeriod)] == id ? run + 1 : 0;
      found |= run > 0 && run + p >= std::max(kMinRounds * p, kMinTokens);
    }
    recent_[static_cast<size_t>(n_++ % kMaxPeriod)] = id;
    return found;
  }

 private:
  std::array<int64_t, kMaxPeriod> run_{};
  std::array<int32_t, kMaxPeriod> recent_{};  // ring of the last tokens
  int64_t n_ = 0;
};

}  // namespace pmetal::infer
