// The pre-norm decoder block that llama, mistral, qwen2, qwen3 and their relatives share: grouped-query attention with
// rope and a gated MLP. A family file fills DecoderConfig from config.json and calls make_decoder().
#pragma once

#include <string>
#include <vector>

#include "formats/json_reader.h"
#include "models/model.h"
#include "nn/rope.h"
#include "ops/activation.h"

namespace pmetal::models {

struct DecoderConfig {
  ModelInfo info;
  int64_t intermediate = 0, kv_heads = 0;
  float rms_norm_eps = 1e-6f;
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  bool qk_norm = false;  // RMS norm over each head of q and k before rope (qwen3)
  ops::Activation activation = ops::Activation::kSilu;
  nn::RopeConfig rope;
  std::vector<int64_t> window;  // per layer, 0 = full attention
};

// Reads the fields all these families share, old names and new (rope_theta / rope_scaling or rope_parameters,
// torch_dtype or dtype), with the family's own defaults preset in `defaults`; checks sizes. Refuses keys that would
// change numbers and are not implemented. Errors: Error(kInvalidInput / kUnsupported) naming file and field.
struct DecoderDefaults {
  int64_t max_positions = 2048;
  double rope_theta = 10000;
  double rms_norm_eps = 1e-6;
  int64_t kv_heads = 0;  // 0: as many as heads
  int64_t head_dim = 0;  // 0: hidden / heads
};
DecoderConfig parse_decoder_config(const formats::JsonReader& json, const DecoderDefaults& defaults);

std::unique_ptr<Model> make_decoder(DecoderConfig config);

}  // namespace pmetal::models
