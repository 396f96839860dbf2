// adapter_config.json of PEFT: which modules, which rank and scale, which kind. Reading honours every field that
// changes mathematics or refuses it; writing gives PEFT's names.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace pmetal::adapters {

// target_modules and exclude_modules: a list of names (exact or suffix after a dot), a full-match regex, or all-linear
struct ModuleSelection {
  std::vector<std::string> names;
  std::string regex;
  bool all_linear = false;
  bool empty() const { return names.empty() && regex.empty() && !all_linear; }
  // all-linear is decided by the caller, which knows what is a Linear
  bool matches(const std::string& module) const;
};

enum class BiasTraining { kNone, kAll, kLoraOnly };
enum class LoraInit { kKaiming, kGaussian, kRandomB };

struct PeftConfig {
  int64_t r = 8;
  double alpha = 8;
  double dropout = 0;
  bool use_rslora = false, use_dora = false, lora_bias = false;
  BiasTraining bias = BiasTraining::kNone;
  LoraInit init = LoraInit::kKaiming;
  ModuleSelection targets, excludes;
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;
  std::vector<int64_t> layers_to_transform;
  std::vector<std::string> layers_pattern;
  std::vector<std::string> modules_to_save;
  // trainable_token_indices: module (as its name ends) -> tokens; a plain list means the token table
  std::vector<std::pair<std::string, std::vector<int64_t>>> token_indices;
  bool ensure_weight_tying = false;  // a tied head follows what is done to the token table
  std::string base_model;

  // rank and scale of one module after the patterns
  int64_t rank_of(const std::string& module) const;
  double alpha_of(const std::string& module) const;
  double scale_of(const std::string& module) const;
  // whether a module of this name gets a low-rank update (`is_head`: the output head, or the token table: both are left
  // out by all-linear)
  bool selects(const std::string& module, bool is_head) const;
  bool saves_whole(const std::string& module) const;  // modules_to_save names it, or a module it is part of
  const std::vector<int64_t>* tokens_of(const std::string& module) const;  // null: none
};

PeftConfig read_peft_config(const std::filesystem::path& file);
// `targets` are the module suffixes that were really adapted, sorted
void write_peft_config(const std::filesystem::path& file, const PeftConfig& config,
                       const std::vector<std::string>& targets);

}  // namespace pmetal::adapters
