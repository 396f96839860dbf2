// Frequencies of rotary embeddings with the published scalings: default, linear, dynamic (NTK), yarn, llama3, longrope.
// Formulas as in Hugging Face modeling_rope_utils; computed in f32 as there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nn/batch.h"
#include "ops/rope.h"

namespace pmetal::nn {

struct RopeConfig {
  enum class Type { kDefault, kLinear, kDynamic, kYarn, kLlama3, kLongRope };
  Type type = Type::kDefault;
  int64_t rotary_dim = 0;
  float theta = 10000;
  double factor = 1;
  int64_t max_positions = 0;                                             // max_position_embeddings
  int64_t original_max_positions = 0;                                    // before scaling; 0: max_positions
  double attention_factor = 0;                                           // 0: by the type's formula
  double beta_fast = 32, beta_slow = 1, mscale = 0, mscale_all_dim = 0;  // yarn
  bool truncate = true;                                                  // yarn
  double low_freq_factor = 1, high_freq_factor = 4;                      // llama3
  std::vector<float> short_factor, long_factor;                          // longrope
  bool depends_on_length() const { return type == Type::kDynamic || type == Type::kLongRope; }
};

inline constexpr std::string_view kRopeTypes = "default, linear, dynamic, yarn, llama3, longrope";
std::optional<RopeConfig::Type> parse_rope_type(const std::string& name);  // one of those, or their older names

struct RopeFrequencies {
  std::vector<float> inv_freq;  // [rotary_dim / 2]
  float scale = 1;              // on cos and sin
};
// `length`: positions seen so far, for the types that depend on it
RopeFrequencies rope_frequencies(const RopeConfig& config, int64_t length);

// One configuration's tables. Frequencies that depend on nothing stay on the device from step to step.
class Rope {
 public:
  explicit Rope(RopeConfig config) : config_(std::move(config)) {}
  // The step's table [tokens, rotary_dim / 2]; sequences of different length class get their own frequencies, so a row
  // does not depend on its batch mates.
  ops::RopeTable table(Context& ctx, const Batch& batch, DType dtype);

 private:
  RopeConfig config_;
  Tensor inv_freq_;
  float scale_ = 1;
  const Allocator* allocator_ = nullptr;  // of the context that inv_freq_ is for
};

}  // namespace pmetal::nn
