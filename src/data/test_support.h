// A tokenizer of one id per byte (id = byte + 3, end token 1, begin token 2) and a ChatML renderer: enough for
// closed-form expectations.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "data/example.h"

namespace pmetal::data::testing_support {

inline Encoder byte_encoder(bool add_bos = false) {
  Encoder encoder;
  encoder.eos_id = 1;
  encoder.encode = [add_bos](std::string_view text, bool add_special) {
    EncodedText out;
    if (add_bos && add_special) {
      out.ids.push_back(2);
      out.offsets.push_back({0, 0});
    }
    for (size_t i = 0; i < text.size(); ++i) {
      out.ids.push_back(static_cast<uint8_t>(text[i]) + 3);
      out.offsets.push_back({static_cast<int64_t>(i), static_cast<int64_t>(i) + 1});
    }
    return out;
  };
  return encoder;
}

inline RenderChat chatml() {
  return [](const std::string& messages, const std::string& tools) {
    RenderedChat out;
    if (!tools.empty()) out.text = "<tools>" + tools + "</tools>";
    int64_t index = 0;
    for (const auto& m : nlohmann::json::parse(messages)) {
      out.text += "<" + m["role"].get<std::string>() + ">";
      const auto begin = static_cast<int64_t>(out.text.size());
      out.text += m["content"].get<std::string>() + "|";
      if (m["role"] == "assistant") out.assistant.push_back({index, {begin, static_cast<int64_t>(out.text.size())}});
      ++index;
    }
    return out;
  };
}

// the text behind the ids whose label is not ignored
inline std::string learned_text(const Example& example) {
  std::string out;
  for (size_t i = 0; i < example.ids.size(); ++i)
    if (example.labels[i] != kIgnore) out += example.ids[i] == 1 ? '$' : static_cast<char>(example.ids[i] - 3);
  return out;
}
inline std::string text_of(const std::vector<int32_t>& ids) {
  std::string out;
  for (int32_t id : ids) out += id == 1 ? '$' : static_cast<char>(id - 3);
  return out;
}

}  // namespace pmetal::data::testing_support
