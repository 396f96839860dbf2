// Pre-tokenizers of tokenizer.json: cut pieces (and, for Metaspace and ByteLevel, rewrite them) before the model sees
// them. Pieces that are added tokens already pass untouched.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer/normalized.h"

namespace pmetal::text {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // appends the parts of `piece` (not an added token); empty parts may be appended, the caller drops them
  virtual void split(const Normalized& piece, Arena& arena, std::vector<Normalized>& out) const = 0;
};
using PreTokenizerPtr = std::unique_ptr<PreTokenizer>;

// The chain of a file, sequences flattened. A ByteLevel at the end is not run when the model reads raw bytes.
struct PreTokenizerChain {
  std::vector<PreTokenizerPtr> steps;
  bool ends_in_bytes = false;  // last step spelled bytes in the byte-level alphabet; left out of `steps`
  bool needs_origin = false;   // a step asks whether a piece starts the text (Metaspace "first")
  std::string only_regex;      // the chain is exactly one isolating split by this pattern (then bytes)
};
void run_pre_tokenizers(const PreTokenizerChain& chain, std::vector<Piece>& pieces, Arena& arena);

PreTokenizerPtr split_pre_tokenizer(const std::string& pattern, bool is_regex, SplitBehavior behavior, bool invert,
                                    const std::string& where);
PreTokenizerPtr whitespace_pre_tokenizer();        // \w+|[^\w\s]+
PreTokenizerPtr whitespace_split_pre_tokenizer();  // at White_Space
PreTokenizerPtr digits_pre_tokenizer(bool individual);
PreTokenizerPtr punctuation_pre_tokenizer(SplitBehavior behavior);
PreTokenizerPtr bert_pre_tokenizer();
PreTokenizerPtr delimiter_pre_tokenizer(uint32_t delimiter);
PreTokenizerPtr unicode_scripts_pre_tokenizer();
PreTokenizerPtr fixed_length_pre_tokenizer(size_t n_chars);
enum class PrependScheme { kFirst, kNever, kAlways };
PreTokenizerPtr metaspace_pre_tokenizer(std::string replacement, PrependScheme scheme, bool split);
PreTokenizerPtr prefix_space_pre_tokenizer();   // first half of ByteLevel with add_prefix_space
PreTokenizerPtr byte_alphabet_pre_tokenizer();  // last half of ByteLevel
// the pattern of ByteLevel with use_regex (GPT-2)
extern const char* const kGpt2Pattern;

}  // namespace pmetal::text
