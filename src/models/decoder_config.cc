// Reading config.json for the decoder families.
#include <cmath>

#include <nlohmann/json.hpp>

#include "models/decoder.h"

namespace pmetal::models {
namespace {

using formats::JsonReader;

// Largest sizes believed: 100 times what published models have; they keep products far from overflow.
constexpr int64_t kMaxLayers = 4096, kMaxDim = 1 << 20, kMaxVocabulary = 1 << 24, kMaxPositions = int64_t{1} << 31;

void parse_rope(const JsonReader& json, const DecoderDefaults& defaults, DecoderConfig& c) {
  nn::RopeConfig& r = c.rope;
  r.rotary_dim = c.info.head_dim;
  r.max_positions = c.info.max_positions;
  r.theta = static_cast<float>(json.number_or("rope_theta", defaults.rope_theta));
  // newer files: rope_parameters, older: rope_scaling (null when there is none); the type under "rope_type" or "type"
  std::optional<JsonReader> p = json.maybe_object("rope_parameters");
  if (!p) p = json.maybe_object("rope_scaling");
  if (!p) return;
  const std::string type = p->string_or("rope_type", p->string_or("type", "default"));
  const std::optional<nn::RopeConfig::Type> known = nn::parse_rope_type(type);
  if (!known)
    p->refuse(p->has("rope_type") ? "rope_type" : "type",
              fmt::format("\"{}\" is not known; known: {}", type, nn::kRopeTypes));
  r.type = *known;
  r.theta = static_cast<float>(p->number_or("rope_theta", r.theta));
  if (p->number_or("partial_rotary_factor", 1) != 1 || json.number_or("partial_rotary_factor", 1) != 1)
    p->refuse("partial_rotary_factor", "this family turns whole heads; only 1 is possible");
  r.original_max_positions =
      p->integer_or("original_max_position_embeddings", json.integer_or("original_max_position_embeddings", 0));
  if (p->has("factor")) {
    r.factor = p->number("factor");
  } else if (r.type == nn::RopeConfig::Type::kYarn && r.original_max_positions > 0) {
    r.factor = static_cast<double>(r.max_positions) / static_cast<double>(r.original_max_positions);
  } else if (r.type != nn::RopeConfig::Type::kDefault && r.type != nn::RopeConfig::Type::kLongRope) {
    r.factor = p->number("factor");  // says that it is missing
  }
  if (!(r.factor > 0) || !std::isfinite(r.factor)) p->refuse("factor", "must be a positive number");
  r.attention_factor = p->number_or("attention_factor", 0);
  r.beta_fast = p->number_or("beta_fast", 32);
  r.beta_slow = p->number_or("beta_slow", 1);
  r.mscale = p->number_or("mscale", 0);
  r.mscale_all_dim = p->number_or("mscale_all_dim", 0);
  r.truncate = p->boolean_or("truncate", true);
  if (r.type == nn::RopeConfig::Type::kYarn && !(r.beta_fast > 0 && r.beta_slow > 0))
    p->refuse("beta_fast", "and beta_slow count turns: both must be positive");
  if (r.type == nn::RopeConfig::Type::kLlama3) {
    r.low_freq_factor = p->number("low_freq_factor");
    r.high_freq_factor = p->number("high_freq_factor");
    if (r.original_max_positions <= 0)
      r.original_max_positions = p->integer("original_max_position_embeddings", 1, kMaxPositions);
    if (!(r.low_freq_factor > 0) || !(r.high_freq_factor > r.low_freq_factor))
      p->refuse("high_freq_factor", "must be above low_freq_factor, and both positive");
  }
  if (r.type == nn::RopeConfig::Type::kLongRope) {
    for (double f : p->numbers("short_factor")) r.short_factor.push_back(static_cast<float>(f));
    for (double f : p->numbers("long_factor")) r.long_factor.push_back(static_cast<float>(f));
    const size_t want = static_cast<size_t>(r.rotary_dim / 2);
    if (r.short_factor.size() != want) p->refuse("short_factor", fmt::format("needs {} values", want));
    if (r.long_factor.size() != want) p->refuse("long_factor", fmt::format("needs {} values", want));
    for (const auto& [name, factors] : {std::pair("short_factor", &r.short_factor), {"long_factor", &r.long_factor}})
      for (const float f : *factors)
        if (!(f > 0) || !std::isfinite(f))
          p->refuse(name, fmt::format("{} divides a frequency: it must be positive", f));
  }
}

std::vector<int32_t> token_ids(const JsonReader& json, std::string_view key, int64_t vocabulary) {
  std::vector<int32_t> ids;
  if (!json.has(key)) return ids;
  const std::vector<int64_t> values = json.is_array(key) ? json.integers(key) : std::vector<int64_t>{json.integer(key)};
  for (int64_t id : values)
    if (id >= 0 && id < vocabulary) ids.push_back(static_cast<int32_t>(id));  // published files carry -1 for "none"
  return ids;
}

void refuse_foreign(const JsonReader& json) {
  // Keys that change numbers in other families or formats and have no meaning here.
  for (const char* key : {"quantization_config", "final_logit_softcapping", "attn_logit_softcapping",
                          "residual_multiplier", "embedding_multiplier", "logits_scaling", "attention_multiplier",
                          "num_local_experts", "num_experts", "vision_config", "text_config"})
    if (json.has(key)) json.refuse(key, "is not supported by this family; use a plain dense checkpoint");
}

}  // namespace

DecoderConfig parse_decoder_config(const JsonReader& json, const DecoderDefaults& defaults) {
  refuse_foreign(json);
  DecoderConfig c;
  ModelInfo& info = c.info;
  info.model_type = json.string("model_type");
  info.hidden = json.integer("hidden_size", 1, kMaxDim);
  info.layers = json.integer("num_hidden_layers", 0, kMaxLayers);
  info.vocabulary = json.integer("vocab_size", 1, kMaxVocabulary);
  info.heads = json.integer("num_attention_heads", 1, kMaxDim);
  c.kv_heads = json.has("num_key_value_heads") ? json.integer("num_key_value_heads", 1, kMaxDim)
               : defaults.kv_heads             ? defaults.kv_heads
                                               : info.heads;
  c.intermediate = json.integer("intermediate_size", 1, kMaxDim * 8);
  if (info.heads % c.kv_heads)
    json.refuse("num_key_value_heads",
                fmt::format("{} does not divide num_attention_heads {}", c.kv_heads, info.heads));
  if (json.has("head_dim")) {
    info.head_dim = json.integer("head_dim", 2, kMaxDim);
  } else if (defaults.head_dim) {
    info.head_dim = defaults.head_dim;
  } else {
    if (info.hidden % info.heads)
      json.refuse("num_attention_heads", fmt::format("{} does not divide hidden_size {}", info.heads, info.hidden));
    info.head_dim = info.hidden / info.heads;
  }
  if (info.heads * info.head_dim > kMaxDim * 8)
    json.refuse("head_dim", fmt::format("{} times {} heads is more than any model has", info.head_dim, info.heads));
  if (info.head_dim % 2) json.refuse("head_dim", fmt::format("{} is odd; rope needs pairs", info.head_dim));
  info.max_positions = json.has("max_position_embeddings") ? json.integer("max_position_embeddings", 1, kMaxPositions)
                                                           : defaults.max_positions;
  c.rms_norm_eps = static_cast<float>(json.number_or("rms_norm_eps", defaults.rms_norm_eps));
  if (!(c.rms_norm_eps >= 0) || !std::isfinite(c.rms_norm_eps))
    json.refuse("rms_norm_eps", "must be a number from 0 on");
  const std::string activation = json.string_or("hidden_act", "silu");
  try {
    c.activation = ops::parse_activation(activation);
  } catch (const Error& error) {
    json.refuse("hidden_act", error.what());
  }
  info.tied_head = json.boolean_or("tie_word_embeddings", false);
  info.initializer_range = static_cast<float>(json.number_or("initializer_range", 0.02));
  if (!(info.initializer_range >= 0) || !std::isfinite(info.initializer_range))
    json.refuse("initializer_range", "must be a number from 0 on");
  if (json.integer_or("pretraining_tp", 1) != 1 && json.integer_or("pretraining_tp", 1) != 0)
    json.refuse("pretraining_tp", "slices matrices in the reference; only 1 is supported");
  info.eos = token_ids(json, "eos_token_id", info.vocabulary);
  if (const auto ids = token_ids(json, "bos_token_id", info.vocabulary); !ids.empty()) info.bos = ids[0];
  if (const auto ids = token_ids(json, "pad_token_id", info.vocabulary); !ids.empty()) info.pad = ids[0];
  c.window.assign(static_cast<size_t>(info.layers), 0);
  parse_rope(json, defaults, c);
  if (!(c.rope.theta > 0) || !std::isfinite(c.rope.theta)) json.refuse("rope_theta", "must be a positive number");
  return c;
}

}  // namespace pmetal::models
