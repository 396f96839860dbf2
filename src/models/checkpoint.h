// Checkpoint: config, tokenizer folder and lazily mapped weights by name, over safetensors (single or sharded) or drawn
// at random in place ("random:CONFIG.json", so that benchmarks need no files).
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "models/model.h"

namespace pmetal::models {

struct TensorInfo {
  std::string name;
  DType dtype;
  Shape shape;
  int64_t size_bytes = 0;
};

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  // A folder in Hugging Face layout, or random:CONFIG.json. Errors name what is missing.
  static std::unique_ptr<Checkpoint> open(const std::string& name);

  virtual const nlohmann::ordered_json& config() const = 0;
  virtual const std::string& source() const = 0;     // of the config, for messages
  virtual std::filesystem::path folder() const = 0;  // tokenizer, template, generation config; empty for random
  virtual bool is_random() const = 0;
  virtual std::vector<TensorInfo> tensors() const = 0;  // empty for random
  virtual bool contains(const std::string& tensor) const = 0;
  // A matrix as a dense weight over the mapped bytes; checks the shape. Not for random.
  virtual quant::Weight matrix(const std::string& tensor, int64_t out, int64_t in) const = 0;
  virtual Buffer raw(const std::string& tensor) const = 0;  // the mapped bytes as they are
  virtual Tensor vector(const std::string& tensor, const Shape& shape, DType dtype) const = 0;  // a copy
};

struct LoadOptions {
  DType dtype = DType::kF32;    // activations, vectors, and dense weights
  uint64_t seed = 0;            // of random weights
  bool for_training = false;    // all matrices become plain tensors [out, in] (trainable), not kernel layouts
  bool scale_residual = false;  // new models for pretraining: residual outputs drawn with 1/sqrt(2 · layers)
};

// Fills every parameter of the model, in the layout the device's kernels want; the source's pages are dropped as they
// are used, so memory stays at one copy. Missing, unclaimed or misshapen tensors: Error(kInvalidInput) naming them.
void load_weights(Context& ctx, Model& model, const Checkpoint& checkpoint, const LoadOptions& options);

// Writes config.json and model safetensors of `model` into an existing, empty folder. Dense formats only; `dtype` is
// the stored one. Tensors are streamed row block by row block.
void save_model(Model& model, const nlohmann::ordered_json& config, const std::filesystem::path& folder, DType dtype,
                int64_t max_shard_bytes = 5'000'000'000);

// tokenizer*, special_tokens_map.json, chat_template*, generation_config.json, vocabulary files: what makes a folder
// complete
void copy_sidecars(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace pmetal::models
