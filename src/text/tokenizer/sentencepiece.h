// Native SentencePiece models (the .model file): its normalizer, its two segmenters and its decoder, equal to the
// library's own, which differs in places from what tokenizer.json files do with the same pieces.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer/decoders.h"
#include "text/tokenizer/model.h"
#include "text/tokenizer/normalizers.h"

namespace pmetal::text {

// Fields of sentencepiece_model.proto that change results.
struct SentencePieceFile {
  enum class Type : uint8_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
  struct Piece {
    std::string text;
    float score = 0;
    Type type = Type::kNormal;
  };
  std::vector<Piece> pieces;
  int model_type = 1;  // 1 Unigram, 2 BPE
  bool byte_fallback = false, whitespace_is_suffix = false;
  std::string unk_surface = " \xe2\x81\x87 ";
  std::string charsmap;
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
  std::string denormalizer_charsmap;
};

SentencePieceFile parse_sentencepiece(std::string_view bytes, const std::string& name);
NormalizerPtr sentencepiece_normalizer(const SentencePieceFile& file, const std::string& name);
std::unique_ptr<Model> sentencepiece_model(const SentencePieceFile& file, const std::string& name);
DecoderStep sentencepiece_decoder(const SentencePieceFile& file);

}  // namespace pmetal::text
