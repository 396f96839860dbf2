// Normalizers of tokenizer.json. Each rewrites one piece of text and keeps the origins of its characters.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer/normalized.h"

namespace pmetal::text {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(Normalized& text, Arena& arena) const = 0;
};
using NormalizerPtr = std::unique_ptr<Normalizer>;

NormalizerPtr normalizer_sequence(std::vector<NormalizerPtr> parts);
enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };
NormalizerPtr unicode_normalizer(UnicodeForm form);
NormalizerPtr lowercase_normalizer();
NormalizerPtr strip_accents_normalizer();
NormalizerPtr bert_normalizer(bool clean_text, bool handle_chinese_chars, bool strip_accents, bool lowercase);
NormalizerPtr replace_normalizer(const std::string& pattern, bool is_regex, std::string content,
                                 const std::string& where);
NormalizerPtr prepend_normalizer(std::string prefix);
NormalizerPtr strip_normalizer(bool left, bool right);
NormalizerPtr nmt_normalizer();
NormalizerPtr byte_level_normalizer();
// `charsmap`: the binary table of SentencePiece (normalizer_spec.precompiled_charsmap), checked here
NormalizerPtr precompiled_normalizer(std::string charsmap, const std::string& where);

}  // namespace pmetal::text
