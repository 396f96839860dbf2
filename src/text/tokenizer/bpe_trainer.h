// Trains a byte-level BPE tokenizer (Sennrich et al. 2016, algorithm 1, with incremental pair counts) and writes it as
// a tokenizer.json that the reference library loads. Deterministic: equal text and options give equal bytes. Pairs of
// equal count are merged in the order of their ids.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pmetal::text {

struct BpeTrainerOptions {
  int32_t vocab_size = 4096;                // special tokens, 256 bytes, merges
  std::vector<std::string> special_tokens;  // ids 0, 1, ...
  int64_t min_frequency = 2;                // a pair that occurs less often is not merged
};

class BpeTrainer {
 public:
  // Error(kUsage) where the vocabulary has no room for special tokens and bytes
  explicit BpeTrainer(BpeTrainerOptions options);
  ~BpeTrainer();
  // counts the words of a text (Qwen2's pre-tokenizer after NFC); ill-formed UTF-8 is an error
  void add(std::string_view text);
  // the contents of tokenizer.json
  std::string finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pmetal::text
