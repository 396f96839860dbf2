// From token ids to the text a reader gets: characters only when complete, nothing that might still turn out to be the
// beginning of a stop string.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/tokenizer.h"

namespace pmetal::infer {

// Finds stop strings in a text that comes in pieces (Aho-Corasick on bytes). The match that ends first wins, of those
// the longest. What is held back is exactly the longest end of the text that begins a stop string.
class StopMatcher {
 public:
  explicit StopMatcher(std::span<const std::string> stops);

  // The part of the text that can be given out now. After a match, what stood before it, and nothing more.
  std::string push(std::string_view text);
  std::string flush();                                    // the text has ended: what was held back
  std::optional<size_t> match() const { return match_; }  // index of the stop string found

 private:
  struct Node {
    std::vector<std::pair<unsigned char, int32_t>> next;
    int32_t failure = 0;
    int32_t depth = 0;
    int32_t stop = -1;  // longest stop string that ends here
  };
  int32_t child(int32_t node, unsigned char byte) const;  // -1: none
  int32_t step(int32_t node, unsigned char byte) const;

  std::vector<Node> nodes_;
  std::vector<size_t> lengths_;
  int32_t at_ = 0;
  std::string held_;  // as long as the node is deep
  std::optional<size_t> match_;
};

class TextStream {
 public:
  // `prompt` goes before: the first piece continues its text
  TextStream(const text::Tokenizer& tokenizer, std::span<const int32_t> prompt, std::span<const std::string> stops,
             bool skip_special);

  // New text that is certain. `may_stop` false: stop strings do not count yet (min_tokens).
  std::string push(int32_t id, bool may_stop);
  std::string flush();
  std::optional<size_t> stop() const { return matcher_.match(); }

 private:
  text::StreamingDecoder decoder_;
  StopMatcher matcher_;
};

}  // namespace pmetal::infer
