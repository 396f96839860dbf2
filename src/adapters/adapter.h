// Adapter: low-rank updates (LoRA, rsLoRA, DoRA) of Linears and of the token table, trained biases, trained tokens and
// whole replaced modules over one model, in PEFT's file format. Several adapters can be resident: each is attached
// under a number, and the batch says per sequence which.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "adapters/peft_config.h"
#include "models/model.h"

namespace pmetal::adapters {

// One tensor of an adapter: trainable; `value` is what the forward uses (the trainer swaps in leaves).
struct AdapterParameter {
  std::string key;  // in adapter_model.safetensors: "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
  Tensor* value;
  bool is_b = false;           // LoRA+: B and 1-D tensors learn faster
  bool is_transposed = false;  // the file has rows for columns (lora_embedding_A)
};

// rows [begin, begin + n) of a weight as f32, n · columns values
using RowReader = std::function<void(int64_t begin, int64_t n, float* rows)>;

// Replaces what adapter_config.json says about the scale: alpha, and the rank in alpha / rank.
struct ScaleOverride {
  std::optional<double> alpha = std::nullopt;
  std::optional<int64_t> rank = std::nullopt;
};

class Adapter {
 public:
  virtual ~Adapter() = default;
  // New adapter on the modules the config selects. A is drawn from Philox(seed, module), B is zero (config.init says
  // otherwise). Errors: Error(kInvalidInput) when nothing matches, listing the module names there are.
  static std::shared_ptr<Adapter> create(Context& ctx, models::Model& model, const PeftConfig& config, uint64_t seed);
  // Reads a PEFT folder (adapter_config.json + adapter_model.safetensors) or the older lora_weights.safetensors.
  // Every tensor must fit a module of the model; errors name file and tensor.
  static std::shared_ptr<Adapter> load(Context& ctx, models::Model& model, const std::filesystem::path& folder,
                                       const ScaleOverride& scale = {});

  virtual const PeftConfig& config() const = 0;
  virtual std::vector<AdapterParameter> parameters() = 0;  // in file order (sorted by key)
  virtual void attach(models::Model& model, int index) = 0;
  virtual void detach(models::Model& model, int index) = 0;
  // What depends on the values (DoRA's row norms) is computed again; call after they changed.
  virtual void refresh() = 0;
  // Adds the update to rows [begin, begin + n) of a module's weight given as f32 [n, in] (DoRA scales them too). Does
  // nothing for modules it does not touch. In f32; `accurate`: products in f64.
  virtual void merge_rows(const std::string& module, int64_t begin, int64_t n, float* rows,
                          bool accurate = false) const = 0;
  virtual bool changes(const std::string& module) const = 0;
  virtual void merge_bias(const std::string& module, int64_t n, float* bias) const = 0;  // in place
  // Adds a bias where the module had none (lora_bias): such an adapter cannot be merged into it.
  virtual bool adds_bias(const std::string& module) const = 0;
  // Whether a head that is tied to the token table still is when both are merged. Where not, the merged model needs a
  // head of its own, whose rows begin as the table's.
  virtual bool keeps_head_tied(models::Model& model) const = 0;
  // DoRA on the token table scales whole columns: measure() takes one pass over the table before its rows are merged.
  virtual bool wants_columns(const std::string& module) const = 0;
  virtual void measure(const std::string& module, int64_t rows, int64_t columns, const RowReader& weight,
                       ThreadPool& threads) = 0;
  // adapter_config.json + adapter_model.safetensors (f32) into an existing folder. `value_of` maps a parameter to the
  // tensor to store (the trainer's f32 master); null: the value itself.
  virtual void save(const std::filesystem::path& folder,
                    const std::function<Tensor(const AdapterParameter&)>& value_of = nullptr) const = 0;
};

// For training on a GPU, after attach(): lays the weights of linears that share an input side by side, with room for
// this adapter's matrices, so that its updates go with the weights' own products (ops/lora_group.h). The model computes
// the same with it and without; nothing happens where it has no use (on the CPU, for DoRA, with dropout).
void prepare_training(Context& ctx, models::Model& model, Adapter& adapter, int index);

// Merges into the weights in memory (dense or any writable format).
void merge(Context& ctx, models::Model& model, Adapter& adapter);

}  // namespace pmetal::adapters
