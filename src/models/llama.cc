// Llama 1 to 3.x (Touvron et al. 2023, Grattafiori et al. 2024), all published rope scalings.
#include <nlohmann/json.hpp>

#include "models/decoder.h"

namespace pmetal::models {
namespace {

std::unique_ptr<Model> build_llama(const nlohmann::ordered_json& config, const std::string& source) {
  const formats::JsonReader json(config, source);
  DecoderConfig c = parse_decoder_config(json, {});
  c.qkv_bias = c.o_bias = json.boolean_or("attention_bias", false);
  c.mlp_bias = json.boolean_or("mlp_bias", false);
  return make_decoder(std::move(c));
}

}  // namespace

extern const Family family_llama;
const Family family_llama = {"llama", {"llama", "llama3"}, "LlamaForCausalLM", build_llama};

}  // namespace pmetal::models
