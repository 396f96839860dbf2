// Qwen3 dense models: RMS norm on each head of q and k, no biases unless attention_bias says so.
#include <nlohmann/json.hpp>

#include "models/qwen_layers.h"

namespace pmetal::models {
namespace {

std::unique_ptr<Model> build_qwen3(const nlohmann::ordered_json& config, const std::string& source) {
  const formats::JsonReader json(config, source);
  DecoderConfig c = parse_decoder_config(json, {.max_positions = 32768, .kv_heads = 32, .head_dim = 128});
  c.qkv_bias = c.o_bias = json.boolean_or("attention_bias", false);
  c.qk_norm = true;
  set_qwen_windows(json, c);
  return make_decoder(std::move(c));
}

}  // namespace

extern const Family family_qwen3;
const Family family_qwen3 = {"qwen3", {"qwen3"}, "Qwen3ForCausalLM", build_qwen3};

}  // namespace pmetal::models
