// Decoders of tokenizer.json as stages that text flows through, so that decoding at once and decoding token by token
// are the same code.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/threads.h"

namespace pmetal::text {

// The state of one stream through a decoder. push() takes a token, or, behind a step that joins tokens, a piece of the
// one endless token; what goes to the sink is whole characters.
class DecodeStage {
 public:
  using Sink = FunctionRef<void(std::string_view)>;
  virtual ~DecodeStage() = default;
  virtual void push(std::string_view text, Sink sink) = 0;
  virtual void finish(Sink) {}  // gives out what was held back
};

struct DecoderStep {
  std::function<std::unique_ptr<DecodeStage>(bool joined)> make;  // joined: input is pieces of one token
  bool joins = false;                                             // its output is one token
};
using DecoderSteps = std::vector<DecoderStep>;

DecoderStep byte_level_decoder();
DecoderStep byte_fallback_decoder();
DecoderStep fuse_decoder();
DecoderStep replace_decoder(const std::string& pattern, bool is_regex, std::string content, const std::string& where);
DecoderStep strip_decoder(uint32_t c, size_t start, size_t stop);
DecoderStep metaspace_decoder(std::string replacement, bool drops_first);
DecoderStep wordpiece_decoder(std::string prefix, bool cleanup);
DecoderStep bpe_decoder(std::string suffix);
DecoderStep ctc_decoder(std::string pad_token, std::string word_delimiter, bool cleanup);
DecoderStep space_decoder();  // a file without decoder: tokens with spaces between them

// One stream through all steps.
class DecodeStream {
 public:
  explicit DecodeStream(const DecoderSteps& steps);
  void push(std::string_view token, std::string& out) { run(0, token, out); }
  void finish(std::string& out);

 private:
  void run(size_t stage, std::string_view text, std::string& out);
  std::vector<std::unique_ptr<DecodeStage>> stages_;
};

}  // namespace pmetal::text
