// The sub-word models of tokenizer.json: BPE, Unigram, WordPiece, WordLevel. Immutable after loading; what an encode
// call needs to remember (caches, heaps) lives in Scratch.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pmetal::text {

struct Token {
  int32_t id;
  uint32_t begin, end;  // bytes of the piece
};

// Working memory of one encode call; a model makes its own kind.
class Scratch {
 public:
  virtual ~Scratch() = default;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual std::unique_ptr<Scratch> make_scratch() const { return nullptr; }
  // appends the tokens of one piece; the text is well-formed UTF-8, or any bytes where reads_bytes()
  virtual void tokenize(std::string_view text, Scratch* scratch, std::vector<Token>& out) const = 0;
  // true: text arrives as raw bytes where the file's pre-tokenizer ends in ByteLevel
  virtual bool reads_bytes() const { return false; }

  virtual std::optional<int32_t> token_to_id(std::string_view token) const = 0;
  virtual int32_t vocab_size() const = 0;  // entries
  virtual int32_t id_limit() const = 0;    // largest id + 1
  virtual bool has_id(int32_t id) const = 0;
  virtual std::string_view id_to_token(int32_t id) const = 0;  // has_id(id)
  // -1, or the id whose tokens are called by the text they were cut from, not by id_to_token()
  virtual int32_t id_named_by_text() const { return -1; }
};

}  // namespace pmetal::text
