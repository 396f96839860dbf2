// Byte-pair encoding (Sennrich et al. 2016) as tokenizer.json describes it: byte-level (GPT-2), with end-of-word suffix
// (CLIP), with SentencePiece's byte fallback. Merging one word costs O(n log n) whatever the word.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/tokenizer/vocab_model.h"

namespace pmetal::text {

struct BpeMerge {
  int32_t left, right, merged;
};

struct BpeOptions {
  Vocab vocab;
  std::vector<BpeMerge> merges;  // in order of rank
  int32_t unk_id = -1;           // -1: characters without a token vanish
  std::string continuing_prefix, end_of_word_suffix;
  bool fuse_unk = false, byte_fallback = false, ignore_merges = false;
  bool reads_bytes = false;  // pieces are raw bytes; the vocabulary is spelled in the byte-level alphabet
};

class Bpe : public VocabModel {
 public:
  using VocabModel::VocabModel;
  static std::unique_ptr<Bpe> make(BpeOptions options);
  // ids only
  virtual void append_ids(std::string_view text, Scratch* scratch, std::vector<int32_t>& ids) const = 0;
};

}  // namespace pmetal::text
