#include "adapters/peft_config.h"

#include <algorithm>
#include <cmath>
#include <regex>
#include <set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "formats/json.h"
#include "formats/json_reader.h"

namespace pmetal::adapters {
namespace {

using formats::JsonReader;
using Json = nlohmann::ordered_json;

std::regex compile(const std::string& pattern) {
  try {
    return std::regex(pattern, std::regex::ECMAScript);
  } catch (const std::regex_error& e) {
    fail(ErrorCode::kInvalidInput, "\"{}\" is not a valid regular expression: {}", pattern, e.what());
  }
}

bool ends_with_name(const std::string& module, const std::string& name) {
  return module == name ||
         (module.size() > name.size() && module.ends_with(name) && module[module.size() - name.size() - 1] == '.');
}

bool pattern_hits(const std::string& key, const std::string& module) {
  return std::regex_match(module, compile("(.*\\.)?(" + key + ")"));
}

// the first number between dots, after a name that the patterns (if any) match
std::optional<int64_t> layer_index(const PeftConfig& c, const std::string& module) {
  std::smatch m;
  const auto first = [&](const std::string& name) {
    return std::regex_search(module, m, compile(".*?\\." + name + "\\.(\\d{1,9})\\."),
                             std::regex_constants::match_continuous);
  };
  if (c.layers_pattern.empty()) return first("[^.]*") ? std::optional(std::stoll(m[1])) : std::nullopt;
  for (const std::string& p : c.layers_pattern)
    if (first("(?:" + p + ")")) return std::stoll(m[1]);
  return std::nullopt;
}

ModuleSelection read_selection(const JsonReader& json, std::string_view key) {
  ModuleSelection s;
  if (!json.has(key)) return s;
  if (json.is_string(key)) {
    const std::string text = json.string(key);
    if (text == "all-linear")
      s.all_linear = true;
    else
      s.regex = text;
  } else {
    s.names = json.strings(key);
  }
  return s;
}

std::vector<std::string> string_or_list(const JsonReader& json, std::string_view key) {
  if (!json.has(key)) return {};
  return json.is_string(key) ? std::vector<std::string>{json.string(key)} : json.strings(key);
}

// Fields of other variants: anything but null, false, {} or [] changes what is computed. So may whatever a later
// version calls use_<something>.
void refuse_variants(const JsonReader& json) {
  std::vector<std::string> keys = {
      "alora_invocation_tokens", "arrow_config",    "kasa_config",       "layer_replication", "monteclora_config",
      "velora_config",           "megatron_config", "target_parameters", "use_qalora",        "use_bdlora"};
  for (const std::string& key : json.keys())
    if (key.starts_with("use_") && key != "use_rslora" && key != "use_dora") keys.push_back(key);
  for (const std::string& key : keys) {
    if (!json.has(key)) continue;
    const Json& value = json.raw(key);
    if ((value.is_boolean() && !value.get<bool>()) || ((value.is_object() || value.is_array()) && value.empty()))
      continue;
    json.refuse(key, "is not supported; LoRA, rsLoRA and DoRA adapters can be loaded");
  }
}

// How the weights began does not matter once they are trained, unless that changed the base model's weights as well:
// then the adapter fits a residual that only PEFT has.
void check_init(const JsonReader& json) {
  if (!json.has("init_lora_weights") || json.is_bool("init_lora_weights")) return;
  const std::string init = json.string("init_lora_weights");
  for (const char* changes : {"pissa", "olora", "corda", "lora_ga", "loftq"})
    if (init.starts_with(changes))
      json.refuse("init_lora_weights",
                  fmt::format("\"{}\" changes the base model's weights, which this adapter then adds to; save it again "
                              "with PEFT's path_initial_model_for_weight_conversion, or merge it there",
                              init));
}

std::vector<std::pair<std::string, std::vector<int64_t>>> read_token_indices(const JsonReader& json) {
  constexpr std::string_view kKey = "trainable_token_indices";
  std::vector<std::pair<std::string, std::vector<int64_t>>> all;
  if (!json.has(kKey)) return all;
  if (json.is_array(kKey)) {
    if (std::vector<int64_t> ids = json.integers(kKey); !ids.empty()) all.emplace_back("embed_tokens", std::move(ids));
    return all;
  }
  const JsonReader modules = json.object(kKey);
  for (const std::string& name : modules.keys())
    if (std::vector<int64_t> ids = modules.integers(name); !ids.empty()) all.emplace_back(name, std::move(ids));
  return all;
}

}  // namespace

bool ModuleSelection::matches(const std::string& module) const {
  if (!regex.empty()) return std::regex_match(module, compile(regex));
  return std::any_of(names.begin(), names.end(), [&](const std::string& n) { return ends_with_name(module, n); });
}

int64_t PeftConfig::rank_of(const std::string& module) const {
  for (const auto& [key, value] : rank_pattern)
    if (pattern_hits(key, module)) return value;
  return r;
}

double PeftConfig::alpha_of(const std::string& module) const {
  for (const auto& [key, value] : alpha_pattern)
    if (pattern_hits(key, module)) return value;
  return alpha;
}

double PeftConfig::scale_of(const std::string& module) const {
  const double rank = static_cast<double>(rank_of(module));
  return alpha_of(module) / (use_rslora ? std::sqrt(rank) : rank);
}

bool PeftConfig::selects(const std::string& module, bool is_head) const {
  if (excludes.matches(module)) return false;
  if (saves_whole(module)) return false;
  if (targets.all_linear) {
    if (is_head) return false;
  } else if (!targets.matches(module)) {
    return false;
  }
  const bool by_whole_name = std::find(targets.names.begin(), targets.names.end(), module) != targets.names.end();
  if (layers_to_transform.empty() || by_whole_name) return true;
  const auto layer = layer_index(*this, module);
  return layer &&
         std::find(layers_to_transform.begin(), layers_to_transform.end(), *layer) != layers_to_transform.end();
}

bool PeftConfig::saves_whole(const std::string& module) const {
  for (std::string name = module;; name.resize(name.rfind('.'))) {
    for (const std::string& n : modules_to_save)
      if (!n.empty() && name.ends_with(n)) return true;
    if (name.find('.') == name.npos) return false;
  }
}

const std::vector<int64_t>* PeftConfig::tokens_of(const std::string& module) const {
  for (const auto& [name, ids] : token_indices)
    if (module.ends_with(name)) return &ids;
  return nullptr;
}

PeftConfig read_peft_config(const fs::path& file) {
  const Json value = formats::read_json(file);
  const JsonReader json(value, file.string());
  const std::string type = json.string_or("peft_type", "LORA");
  if (type != "LORA") json.refuse("peft_type", fmt::format("\"{}\" is not supported; LORA is", type));
  refuse_variants(json);
  PeftConfig c;
  c.r = json.integer("r", 1, 1 << 16);
  c.alpha = json.number_or("lora_alpha", json.number_or("alpha", 8));
  c.dropout = json.number_or("lora_dropout", 0);
  c.use_rslora = json.boolean_or("use_rslora", false);
  c.use_dora = json.boolean_or("use_dora", false);
  c.lora_bias = json.boolean_or("lora_bias", false);
  json.boolean_or("fan_in_fan_out", false);  // says how Conv1D weights lie; PEFT too passes it by for Linears
  c.ensure_weight_tying = json.boolean_or("ensure_weight_tying", false);
  if (c.lora_bias && c.use_dora) json.refuse("lora_bias", "cannot go with use_dora");
  check_init(json);
  const std::string bias = json.string_or("bias", "none");
  if (bias != "none" && bias != "all" && bias != "lora_only") json.refuse("bias", "must be none, all or lora_only");
  c.bias = bias == "all" ? BiasTraining::kAll : bias == "lora_only" ? BiasTraining::kLoraOnly : BiasTraining::kNone;
  c.targets = read_selection(json, "target_modules");
  c.excludes = read_selection(json, "exclude_modules");
  if (json.has("rank_pattern"))
    for (const auto& [key, rank] : json.raw("rank_pattern").items()) {
      if (!rank.is_number_integer() || rank.get<int64_t>() < 1)
        json.refuse("rank_pattern", "ranks must be integers from 1 on");
      c.rank_pattern.emplace_back(key, rank.get<int64_t>());
    }
  if (json.has("alpha_pattern"))
    for (const auto& [key, alpha] : json.raw("alpha_pattern").items()) {
      if (!alpha.is_number()) json.refuse("alpha_pattern", "alphas must be numbers");
      c.alpha_pattern.emplace_back(key, alpha.get<double>());
    }
  if (json.has("layers_to_transform"))
    c.layers_to_transform = json.is_array("layers_to_transform")
                                ? json.integers("layers_to_transform")
                                : std::vector<int64_t>{json.integer("layers_to_transform")};
  c.layers_pattern = string_or_list(json, "layers_pattern");
  c.modules_to_save = string_or_list(json, "modules_to_save");
  c.base_model = json.string_or("base_model_name_or_path", "");
  c.token_indices = read_token_indices(json);
  if (c.targets.empty()) json.refuse("target_modules", "is missing; it says which modules have adapters");
  if (!c.layers_to_transform.empty() && c.targets.names.empty())
    json.refuse("layers_to_transform", "goes with a list of target_modules, not with a pattern of them");
  return c;
}

void write_peft_config(const fs::path& file, const PeftConfig& c, const std::vector<std::string>& targets) {
  const auto list_or_null = [](const auto& list) { return list.empty() ? Json(nullptr) : Json(list); };
  Json j;
  j["auto_mapping"] = nullptr;
  j["base_model_name_or_path"] = c.base_model;
  j["bias"] = c.bias == BiasTraining::kAll ? "all" : c.bias == BiasTraining::kLoraOnly ? "lora_only" : "none";
  if (!c.excludes.regex.empty())
    j["exclude_modules"] = c.excludes.regex;
  else
    j["exclude_modules"] = list_or_null(c.excludes.names);
  j["fan_in_fan_out"] = false;
  j["inference_mode"] = true;
  // what the weights were at the start does not matter to a reader of trained weights
  j["init_lora_weights"] = true;
  j["layers_pattern"] = list_or_null(c.layers_pattern);
  j["layers_to_transform"] = list_or_null(c.layers_to_transform);
  j["lora_alpha"] = c.alpha == std::floor(c.alpha) ? Json(static_cast<int64_t>(c.alpha)) : Json(c.alpha);
  j["lora_bias"] = c.lora_bias;
  j["lora_dropout"] = c.dropout;
  j["modules_to_save"] = list_or_null(c.modules_to_save);
  j["peft_type"] = "LORA";
  j["peft_version"] = "0.19.0";
  j["r"] = c.r;
  j["rank_pattern"] = Json::object();
  for (const auto& [key, value] : c.rank_pattern) j["rank_pattern"][key] = value;
  j["alpha_pattern"] = Json::object();
  for (const auto& [key, value] : c.alpha_pattern)
    j["alpha_pattern"][key] = value == std::floor(value) ? Json(static_cast<int64_t>(value)) : Json(value);
  j["revision"] = nullptr;
  if (!c.targets.regex.empty())
    j["target_modules"] = c.targets.regex;
  else
    j["target_modules"] = targets;
  j["target_parameters"] = nullptr;
  j["task_type"] = "CAUSAL_LM";
  j["trainable_token_indices"] = nullptr;
  j["use_dora"] = c.use_dora;
  j["use_rslora"] = c.use_rslora;
  write_file_atomic(file, formats::dump_json(j) + "\n");
}

}  // namespace pmetal::adapters
