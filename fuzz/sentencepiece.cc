// A SentencePiece .model from anywhere, and a text in front of it (first line). Properties as for tokenizer.json.
#include <string_view>

#include "base/error.h"
#include "text/tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pmetal;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = input.find('\n');
  if (cut == std::string_view::npos) return 0;
  try {
    const auto tokenizer = text::Tokenizer::from_sentencepiece(input.substr(cut + 1), "tokenizer.model");
    text::EncodeOptions options;
    options.with_offsets = true;
    const auto encoding = tokenizer->encode(input.substr(0, cut), options);
    PMETAL_ASSERT(encoding.offsets.size() == encoding.ids.size());
    for (int32_t id : encoding.ids) PMETAL_ASSERT(id >= 0 && id < tokenizer->vocab_size());
    text::StreamingDecoder decoder(*tokenizer, false);
    std::string streamed;
    for (int32_t id : encoding.ids) streamed += decoder.push(id);
    streamed += decoder.flush();
    PMETAL_ASSERT(streamed == tokenizer->decode(encoding.ids, false));
  } catch (const Error&) {
  }
  return 0;
}
