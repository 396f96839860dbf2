// Text to token ids and back, exactly as Hugging Face's `tokenizers` library does it, from tokenizer.json or a
// SentencePiece .model. Errors are Error(kInvalidInput / kUnsupported) that name the file and the component.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/encoding.h"

namespace pmetal::text {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // only between non-word characters
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool normalized = false;   // looked for in the normalized text
  bool special = false;      // left out by decode(..., skip_special)
};

class Tokenizer {
 public:
  static std::unique_ptr<Tokenizer> from_file(const std::filesystem::path& path);
  // tokenizer.json of the folder, else tokenizer.model
  static std::unique_ptr<Tokenizer> from_dir(const std::filesystem::path& dir);
  // contents of a tokenizer.json / .model; `name` is for error messages
  static std::unique_ptr<Tokenizer> from_json(std::string_view json, const std::string& name);
  static std::unique_ptr<Tokenizer> from_sentencepiece(std::string_view bytes, const std::string& name);
  ~Tokenizer();

  // Thread-safe. Ill-formed UTF-8 in the text is an error.
  Encoding encode(std::string_view text, const EncodeOptions& options = {}) const;
  // ids only: the fast way. Honours add_special_tokens; truncation and padding of the file do not apply.
  std::vector<int32_t> encode_ids(std::string_view text, bool add_special_tokens = true) const;
  // encodes each text; padding to the longest applies over the batch where the file asks for it
  std::vector<Encoding> encode_batch(const std::vector<std::string>& texts, const EncodeOptions& options = {}) const;

  // unknown ids are skipped, as in the reference
  std::string decode(const std::vector<int32_t>& ids, bool skip_special = false) const;

  int32_t vocab_size() const;  // highest id + 1, added tokens included
  std::optional<int32_t> token_to_id(std::string_view token) const;
  std::string id_to_token(int32_t id) const;  // empty for an unknown id
  bool is_special(int32_t id) const;
  const std::vector<AddedToken>& added_tokens() const;  // by id
  uint64_t hash() const;  // of the file's contents: equal files, equal hash, on every machine

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Decodes a growing sequence. What push() and flush() return, joined, equals decode() of all ids; a character is given
// out only when it is complete.
class StreamingDecoder {
 public:
  explicit StreamingDecoder(const Tokenizer& tokenizer, bool skip_special = true);
  ~StreamingDecoder();
  StreamingDecoder(StreamingDecoder&&) noexcept;
  std::string push(int32_t id);
  std::string flush();  // what is left; the decoder is then as new

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pmetal::text
