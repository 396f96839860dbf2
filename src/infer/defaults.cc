#include "infer/defaults.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "formats/json.h"

namespace pmetal::infer {
namespace {

// Recommended by the model cards. Absent numbers are off.
struct Row {
  std::string_view model_type;  // a final * stands for any ending
  Mode mode;                    // kAuto: whatever the mode
  double temperature, top_p;
  int64_t top_k = 0;
  double min_p = 0, repetition = 1, presence = 0;
};
using enum Mode;
constexpr Row kPresets[] = {
    {"qwen3_5*", kThinkingGeneral, 1.0, .95, 20, 0, 1, 1.5},
    {"qwen3_5*", kThinkingCoding, .6, .95, 20},
    {"qwen3_5*", kInstructGeneral, .7, .8, 20, 0, 1, 1.5},
    {"qwen3_5*", kInstructReasoning, 1.0, 1.0, 40, 0, 1, 2.0},
    {"qwen3*", kThinkingGeneral, .6, .95, 20},
    {"qwen3*", kThinkingCoding, .6, .95, 20},
    {"qwen3*", kInstructGeneral, .7, .8, 20},
    {"qwen3*", kInstructReasoning, .7, .8, 20},
    {"qwen2*", kAuto, .7, .8, 20, 0, 1.05},
    {"gemma3*", kAuto, 1.0, .95, 64},
    {"gemma4*", kAuto, 1.0, .95, 64},
    {"llama", kAuto, .6, .9},
    {"glm4*", kAuto, 1.0, .95},
    {"gpt_oss", kAuto, 1.0, 1.0},
};

bool matches(std::string_view pattern, std::string_view model_type) {
  if (!pattern.ends_with('*')) return pattern == model_type;
  return model_type.starts_with(pattern.substr(0, pattern.size() - 1));
}

// Turn ends of chat formats. <|end|> ends a turn in Phi but only a channel in gpt-oss, so it is not among them.
constexpr std::string_view kTurnEnds[] = {"<|im_end|>",
                                          "<|eot_id|>",
                                          "<|eot|>",
                                          "<|eom_id|>",
                                          "<end_of_turn>",
                                          "<turn|>",
                                          "<|end_of_text|>",
                                          "<|endoftext|>",
                                          "<|return|>",
                                          "<|call|>",
                                          "<|END_OF_TURN_TOKEN|>",
                                          "<\xEF\xBD\x9C"
                                          "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
                                          "</s>"};

template <class T>
void fill(std::optional<T>& value, const std::optional<T>& next) {
  if (!value) value = next;
}

}  // namespace

void SamplingDefaults::fill_from(const SamplingDefaults& n) {
  fill(temperature, n.temperature);
  fill(top_p, n.top_p);
  fill(min_p, n.min_p);
  fill(typical_p, n.typical_p);
  fill(repetition_penalty, n.repetition_penalty);
  fill(frequency_penalty, n.frequency_penalty);
  fill(presence_penalty, n.presence_penalty);
  fill(epsilon_cutoff, n.epsilon_cutoff);
  fill(eta_cutoff, n.eta_cutoff);
  fill(top_k, n.top_k);
  fill(no_repeat_ngram, n.no_repeat_ngram);
  if (banned.empty()) banned = n.banned;
  if (sequence_bias.empty()) sequence_bias = n.sequence_bias;
}

SamplingParams SamplingDefaults::params() const {
  SamplingParams p;
  p.temperature = static_cast<float>(temperature.value_or(1));
  p.top_p = static_cast<float>(top_p.value_or(1));
  p.min_p = static_cast<float>(min_p.value_or(0));
  p.typical_p = static_cast<float>(typical_p.value_or(1));
  p.repetition_penalty = static_cast<float>(repetition_penalty.value_or(1));
  p.frequency_penalty = static_cast<float>(frequency_penalty.value_or(0));
  p.presence_penalty = static_cast<float>(presence_penalty.value_or(0));
  p.epsilon_cutoff = static_cast<float>(epsilon_cutoff.value_or(0));
  p.eta_cutoff = static_cast<float>(eta_cutoff.value_or(0));
  p.top_k = top_k.value_or(0);
  p.no_repeat_ngram = no_repeat_ngram.value_or(0);
  p.banned = banned;
  p.sequence_bias = sequence_bias;
  return p;
}

GenerationConfig read_generation_config(const std::filesystem::path& folder) {
  GenerationConfig out;
  const fs::path path = folder / "generation_config.json";
  if (folder.empty() || !fs::exists(path)) return out;
  const auto json = formats::read_json(path);
  if (!json.is_object()) fail(ErrorCode::kInvalidInput, "{}: expected a JSON object", path.string());
  const auto wrong = [&](const char* key, const char* what) {
    fail(ErrorCode::kInvalidInput, "{}: field \"{}\": expected {}, found {}", path.string(), key, what,
         json[key].dump().substr(0, 40));
  };
  const auto has = [&](const char* key) { return json.contains(key) && !json[key].is_null(); };
  const auto number = [&](const char* key, std::optional<double>& to) {
    if (!has(key)) return;
    if (!json[key].is_number()) wrong(key, "a number");
    to = json[key].get<double>();
  };
  const auto integer = [&](const char* key, std::optional<int64_t>& to) {
    if (!has(key)) return;
    if (!json[key].is_number_integer()) wrong(key, "a whole number");
    to = json[key].get<int64_t>();
  };
  const auto ids = [&](const char* key, const nlohmann::ordered_json& list) {
    std::vector<int32_t> all;
    for (const auto& id : list) {
      if (!id.is_number_integer()) wrong(key, "token ids");
      all.push_back(id.get<int32_t>());
    }
    return all;
  };
  SamplingDefaults& s = out.sampling;
  number("temperature", s.temperature);
  number("top_p", s.top_p);
  number("min_p", s.min_p);
  number("typical_p", s.typical_p);
  number("repetition_penalty", s.repetition_penalty);
  number("epsilon_cutoff", s.epsilon_cutoff);
  number("eta_cutoff", s.eta_cutoff);
  integer("top_k", s.top_k);
  integer("no_repeat_ngram_size", s.no_repeat_ngram);
  if (has("do_sample") && json["do_sample"] == false) s.temperature = 0;
  if (has("suppress_tokens")) {
    if (!json["suppress_tokens"].is_array()) wrong("suppress_tokens", "a list");
    s.banned = ids("suppress_tokens", json["suppress_tokens"]);
  }
  if (has("bad_words_ids")) {
    if (!json["bad_words_ids"].is_array()) wrong("bad_words_ids", "a list of lists");
    for (const auto& word : json["bad_words_ids"]) {
      if (!word.is_array() || word.empty()) wrong("bad_words_ids", "a list of lists");
      s.sequence_bias.push_back({ids("bad_words_ids", word)});
    }
  }
  if (has("eos_token_id")) {
    const auto& eos = json["eos_token_id"];
    out.eos = ids("eos_token_id", eos.is_array() ? eos : nlohmann::ordered_json::array({eos}));
  }
  return out;
}

std::optional<SamplingDefaults> family_preset(std::string_view model_type, Mode mode, bool thinking) {
  const Mode wanted = mode != kAuto ? mode : thinking ? kThinkingGeneral : kInstructGeneral;
  for (const Row& r : kPresets) {
    if (!matches(r.model_type, model_type)) continue;
    if (r.mode != wanted && (r.mode != kAuto || mode != kAuto)) continue;
    SamplingDefaults d;
    d.temperature = r.temperature;
    d.top_p = r.top_p;
    d.top_k = r.top_k;
    d.min_p = r.min_p;
    d.repetition_penalty = r.repetition;
    d.presence_penalty = r.presence;
    return d;
  }
  return std::nullopt;
}

SamplingDefaults built_in_sampling() {
  SamplingDefaults d;
  d.temperature = .7;
  d.top_k = 20;
  d.top_p = .8;
  return d;
}

std::vector<int32_t> end_ids(const GenerationConfig& config, const models::ModelInfo& info,
                             const text::Tokenizer& tokenizer, std::optional<int32_t> eos) {
  std::vector<int32_t> ids = config.eos;
  ids.insert(ids.end(), info.eos.begin(), info.eos.end());
  if (eos) ids.push_back(*eos);
  const auto add_special = [&](std::string_view token) {
    if (const auto id = tokenizer.token_to_id(token); id && tokenizer.is_special(*id)) ids.push_back(*id);
  };
  for (std::string_view token : kTurnEnds) add_special(token);
  if (info.model_type.starts_with("glm"))  // the user's or a tool's turn begins: the model's has ended
    for (std::string_view token : {"<|user|>", "<|observation|>"}) add_special(token);
  if (info.model_type.starts_with("phi")) add_special("<|end|>");
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace pmetal::infer
