// Where sampling values come from when a user does not give them: the model's generation_config.json, what the makers
// of its family recommend, and built-in values. Also the ids that end an answer.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "infer/sampling_params.h"
#include "models/model.h"
#include "text/tokenizer/tokenizer.h"

namespace pmetal::infer {

// Absent values are left to the next source.
struct SamplingDefaults {
  std::optional<double> temperature, top_p, min_p, typical_p, repetition_penalty, frequency_penalty, presence_penalty;
  std::optional<double> epsilon_cutoff, eta_cutoff;
  std::optional<int64_t> top_k, no_repeat_ngram;
  std::vector<int32_t> banned;
  std::vector<SequenceBias> sequence_bias;

  // takes what is missing here from `next`
  void fill_from(const SamplingDefaults& next);
  SamplingParams params() const;  // absent = off; temperature 1
};

struct GenerationConfig {
  SamplingDefaults sampling;
  std::vector<int32_t> eos;
};
// generation_config.json of a model folder; empty when there is none. `do_sample: false` is temperature 0.
GenerationConfig read_generation_config(const std::filesystem::path& folder);

enum class Mode : uint8_t { kAuto, kThinkingGeneral, kThinkingCoding, kInstructGeneral, kInstructReasoning };

// What the makers recommend for a model type; nothing when the table does not know. kAuto is the thinking mode, or the
// instruct mode when thinking is off.
std::optional<SamplingDefaults> family_preset(std::string_view model_type, Mode mode, bool thinking);
SamplingDefaults built_in_sampling();

// Every id that ends an answer: of the generation config, the model's config, `eos` (the tokenizer's), and the known
// turn ends that are special tokens here.
std::vector<int32_t> end_ids(const GenerationConfig& config, const models::ModelInfo& info,
                             const text::Tokenizer& tokenizer, std::optional<int32_t> eos);

}  // namespace pmetal::infer
