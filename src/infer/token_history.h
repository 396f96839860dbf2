// The tokens of one sequence, with running counts for the penalties: appending and truncating cost O(1) per token.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace pmetal::infer {

class TokenHistory {
 public:
  // window: how many last tokens the counts cover; 0 = all
  TokenHistory(std::span<const int32_t> prompt, int64_t window) : window_(window) {
    prompt_length_ = static_cast<int64_t>(prompt.size());
    for (int32_t id : prompt) push(id);
  }

  void push(int32_t id) {
    add(id, length(), +1);
    tokens_.push_back(id);
    if (window_ > 0 && length() > window_) add(tokens_[at(length() - window_ - 1)], length() - window_ - 1, -1);
  }
  // forgets what is beyond `length`, which is at least the prompt's
  void truncate(int64_t new_length) {
    while (length() > new_length) {
      if (window_ > 0 && length() > window_) add(tokens_[at(length() - window_ - 1)], length() - window_ - 1, +1);
      const int32_t last = tokens_.back();
      tokens_.pop_back();
      add(last, length(), -1);
    }
  }

  struct Count {
    int64_t all = 0, output = 0;  // in prompt and output, in the output alone; within the window
  };
  const std::unordered_map<int32_t, Count>& counts() const { return counts_; }  // tokens of the window only
  const std::vector<int32_t>& tokens() const { return tokens_; }
  int64_t length() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t prompt_length() const { return prompt_length_; }
  int64_t output_length() const { return length() - prompt_length_; }

 private:
  static size_t at(int64_t i) { return static_cast<size_t>(i); }
  void add(int32_t id, int64_t position, int64_t n) {
    Count& count = counts_[id];
    count.all += n;
    if (position >= prompt_length_) count.output += n;
    if (count.all == 0) counts_.erase(id);
  }

  std::vector<int32_t> tokens_;
  std::unordered_map<int32_t, Count> counts_;
  int64_t prompt_length_ = 0, window_ = 0;
};

}  // namespace pmetal::infer
