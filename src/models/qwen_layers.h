// Which layers of a Qwen model slide: `layer_types` in newer files, use_sliding_window + max_window_layers in older
// ones.
#pragma once

#include "models/decoder.h"

namespace pmetal::models {

inline void set_qwen_windows(const formats::JsonReader& json, DecoderConfig& c) {
  const int64_t window = json.boolean_or("use_sliding_window", false) ? json.integer_or("sliding_window", 4096) : 0;
  const int64_t first = json.integer_or("max_window_layers", 28);
  if (json.has("layer_types")) {
    const std::vector<std::string> types = json.strings("layer_types");
    if (types.size() != c.window.size())
      json.refuse("layer_types", fmt::format("has {} entries for {} layers", types.size(), c.window.size()));
    for (size_t i = 0; i < types.size(); ++i) {
      if (types[i] != "full_attention" && types[i] != "sliding_attention")
        json.refuse("layer_types", fmt::format("\"{}\" is not supported by this family", types[i]));
      c.window[i] = types[i] == "sliding_attention" ? window : 0;
    }
  } else {
    for (size_t i = 0; i < c.window.size(); ++i) c.window[i] = static_cast<int64_t>(i) >= first ? window : 0;
  }
}

}  // namespace pmetal::models
