// Mistral 7B and its successors (Jiang et al. 2023): Llama with a sliding window on every layer where one is set.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "models/decoder.h"

namespace pmetal::models {
namespace {

std::unique_ptr<Model> build_mistral(const nlohmann::ordered_json& config, const std::string& source) {
  const formats::JsonReader json(config, source);
  DecoderConfig c = parse_decoder_config(json, {.max_positions = 131072, .kv_heads = 8});
  // The reference's default is 4096 when the key is absent; an explicit null means no window.
  const std::vector<std::string> keys = json.keys();
  const bool present = std::find(keys.begin(), keys.end(), "sliding_window") != keys.end();
  const int64_t window = json.has("sliding_window") ? json.integer("sliding_window", 1, int64_t{1} << 31)
                         : present                  ? 0
                                                    : 4096;
  c.window.assign(c.window.size(), window);
  return make_decoder(std::move(c));
}

}  // namespace

extern const Family family_mistral;
const Family family_mistral = {"mistral", {"mistral"}, "MistralForCausalLM", build_mistral};

}  // namespace pmetal::models
