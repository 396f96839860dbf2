// The parts of a loaded tokenizer; filled by the readers of tokenizer.json and SentencePiece models.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/decoders.h"
#include "text/tokenizer/model.h"
#include "text/tokenizer/normalizers.h"
#include "text/tokenizer/post_processors.h"
#include "text/tokenizer/pre_tokenizers.h"
#include "text/tokenizer/scanner.h"
#include "text/tokenizer/tokenizer.h"

namespace pmetal::text {

struct Tokenizer::Impl {
  std::string name;  // of the file
  uint64_t content_hash = 0;
  NormalizerPtr normalizer;  // may be null
  PreTokenizerChain pre_tokenizers;
  std::unique_ptr<Model> model;
  PostProcessorPtr post_processor;  // may be null
  DecoderSteps decoders;
  bool decodes_bytes = false;  // the decoder is ByteLevel alone
  std::optional<Truncation> truncation;
  std::optional<Padding> padding;
  std::vector<AddedToken> added;  // by id
  // indices into `added`: of tokens that are looked for by the same text the first counts, special ones before others
  // and then in the order of the file, as in the reference up to 0.22 (later ones draw lots)
  std::vector<size_t> search_order;
  std::vector<std::pair<int32_t, std::string>> shown_as;  // ids that decode to another text than their token

  // derived by prepare()
  const Bpe* bytes_model = nullptr;  // set when the fast way applies: scan, then byte-level BPE
  ScanFunction scanner = nullptr;
  AddedTokenFinder raw_tokens, normalized_tokens;
  std::vector<std::string> token_text;   // by id: what decoding starts from
  std::vector<std::string> token_bytes;  // by id, where decodes_bytes
  std::vector<uint8_t> is_special;
  std::vector<Part::Edge> edges;  // by id, where offsets are trimmed
  int32_t vocab_size = 0;

  // Registers added tokens in the order of the file: a token of the model keeps the model's id, a new one gets the
  // next.
  void add_tokens(std::vector<AddedToken> tokens);
  void prepare();
  void encode_part(std::string_view text, bool is_second, const std::optional<Truncation>& limits, bool with_offsets,
                   Part& out) const;
  void encode_bytes(std::string_view text, Scratch* scratch, std::vector<int32_t>& ids) const;
  void cut(std::string_view text, Arena& arena, std::vector<Piece>& pieces) const;
  Encoding encode(std::string_view text, const EncodeOptions& options, bool pads) const;

  // Scratch is kept between calls; a call takes one and gives it back.
  std::unique_ptr<Scratch> take_scratch() const;
  void give_scratch(std::unique_ptr<Scratch> scratch) const;
  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<Scratch>> free_scratch;
};

}  // namespace pmetal::text
