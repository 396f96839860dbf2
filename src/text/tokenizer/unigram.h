// Unigram language model (Kudo 2018), WordPiece and WordLevel.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/tokenizer/model.h"
#include "text/tokenizer/vocab.h"

namespace pmetal::text {

// Viterbi over pieces with their log-probabilities; index in `pieces` is the id. Time is bounded by text length times
// the longest piece, which is limited. `unk_id` -1: an unknown character is an error when it is met.
std::unique_ptr<Model> make_unigram(std::vector<std::pair<std::string, double>> pieces, int32_t unk_id,
                                    bool byte_fallback, const std::string& where);

// longest match first; words with more than max_chars characters, or that cannot be cut, become unk
std::unique_ptr<Model> make_wordpiece(Vocab vocab, std::string unk_token, std::string continuing_prefix,
                                      size_t max_chars, const std::string& where);

std::unique_ptr<Model> make_wordlevel(Vocab vocab, std::string unk_token, const std::string& where);

}  // namespace pmetal::text
