// Qwen2 and Qwen2.5: biases on q, k and v, none on o; no norms on q and k.
#include <nlohmann/json.hpp>

#include "models/qwen_layers.h"

namespace pmetal::models {
namespace {

std::unique_ptr<Model> build_qwen2(const nlohmann::ordered_json& config, const std::string& source) {
  const formats::JsonReader json(config, source);
  DecoderConfig c = parse_decoder_config(json, {.max_positions = 32768, .kv_heads = 32});
  c.qkv_bias = true;
  set_qwen_windows(json, c);
  return make_decoder(std::move(c));
}

}  // namespace

extern const Family family_qwen2;
const Family family_qwen2 = {"qwen2", {"qwen2", "qwen2_5"}, "Qwen2ForCausalLM", build_qwen2};

}  // namespace pmetal::models
