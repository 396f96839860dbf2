// tokenizer.json from anywhere. The first line is a text, the rest the file. Properties: a file is refused with Error
// or gives a tokenizer whose encoding with and without offsets agrees, and whose decoding at once and token by token
// agree.
#include <string_view>

#include "base/error.h"
#include "text/tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pmetal;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = input.find('\n');
  if (cut == std::string_view::npos) return 0;
  try {
    const auto tokenizer = text::Tokenizer::from_json(input.substr(cut + 1), "tokenizer.json");
    text::EncodeOptions options;
    options.with_offsets = true;
    const auto encoding = tokenizer->encode(input.substr(0, cut), options);
    PMETAL_ASSERT(encoding.offsets.size() == encoding.ids.size());
    PMETAL_ASSERT(encoding.type_ids.size() == encoding.ids.size());
    PMETAL_ASSERT(encoding.special_mask.size() == encoding.ids.size());
    options.with_offsets = false;
    PMETAL_ASSERT(tokenizer->encode(input.substr(0, cut), options).ids == encoding.ids);
    for (const bool skip_special : {false, true}) {
      text::StreamingDecoder decoder(*tokenizer, skip_special);
      std::string streamed;
      for (int32_t id : encoding.ids) streamed += decoder.push(id);
      streamed += decoder.flush();
      PMETAL_ASSERT(streamed == tokenizer->decode(encoding.ids, skip_special));
    }
  } catch (const Error&) {
  }
  return 0;
}
