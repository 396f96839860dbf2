#include "data/text_encoder.h"

#include <algorithm>

namespace pmetal::data {
namespace {

// byte position of every code point, and of the end
std::vector<int64_t> code_point_starts(std::string_view text) {
  std::vector<int64_t> starts;
  for (size_t i = 0; i < text.size(); ++i)
    if ((static_cast<uint8_t>(text[i]) & 0xc0) != 0x80) starts.push_back(static_cast<int64_t>(i));
  starts.push_back(static_cast<int64_t>(text.size()));
  return starts;
}

}  // namespace

Encoder make_encoder(std::shared_ptr<const text::Tokenizer> tokenizer, std::optional<int32_t> eos_id) {
  Encoder encoder;
  encoder.eos_id = eos_id;
  encoder.encode = [tokenizer](std::string_view text, bool add_special) {
    text::EncodeOptions options;
    options.add_special_tokens = add_special;
    options.with_offsets = true;
    options.apply_file_limits = false;
    auto encoding = tokenizer->encode(text, options);
    const auto starts = code_point_starts(text);
    EncodedText out;
    out.offsets.reserve(encoding.ids.size());
    for (size_t i = 0; i < encoding.ids.size(); ++i) {
      const auto at = [&](uint32_t code_point) { return starts[std::min<size_t>(code_point, starts.size() - 1)]; };
      const bool is_added = !encoding.special_mask.empty() && encoding.special_mask[i] != 0;
      out.offsets.push_back(is_added ? Span{} : Span{at(encoding.offsets[i].begin), at(encoding.offsets[i].end)});
    }
    out.ids = std::move(encoding.ids);
    return out;
  };
  encoder.encode_ids = [tokenizer](std::string_view text, bool add_special) {
    return tokenizer->encode_ids(text, add_special);
  };
  return encoder;
}

}  // namespace pmetal::data
