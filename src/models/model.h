// Model: one forward for training, prefill, decode, embeddings, distillation and verification. embed, block(i) and
// final are called by whoever drives: all of them, a range, with taps between. Families (one file each) build it from a
// config.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "nn/block.h"
#include "ops/head_loss.h"

namespace pmetal::models {

// What a layer remembers between steps: declared as data, stored by SequenceState.
struct LayerMemory {
  int64_t kv_heads = 0, d_k = 0, d_v = 0;
  int64_t window = 0;  // 0: everything
};

struct ModelInfo {
  std::string model_type;  // family stem
  int64_t vocabulary = 0, hidden = 0, layers = 0, max_positions = 0;
  int64_t heads = 0, head_dim = 0;
  bool tied_head = false;
  bool rope_depends_on_length = false;  // the rotary table of a token needs more than its position
  std::vector<LayerMemory> memory;      // per layer
  std::optional<int32_t> bos, pad;
  std::vector<int32_t> eos;
  float initializer_range = 0.02f;
};

using nn::Hidden;

// Values that all blocks of one step share (rope tables); made by Model::begin.
class StepValues {
 public:
  virtual ~StepValues() = default;
};

// The output matrix. logits = softcap(logit_scale · (h · Wᵀ))
struct Head {
  const quant::Weight* frozen = nullptr;  // or
  Tensor dense;                           // trainable [V, hidden]
  // The head as a module, where adapters sit. A tied one has the embedding's weight, and no tensor in checkpoints.
  nn::Linear* linear = nullptr;
  float logit_scale = 1, softcap = 0;
};

// Walks all parameters in checkpoint order.
class ParameterVisitor {
 public:
  virtual ~ParameterVisitor() = default;
  virtual void on(nn::Linear& linear) = 0;        // "<name>.weight" [out, in], "<name>.bias" [out] where it has one
  virtual void on(nn::Embedding& embedding) = 0;  // "<name>.weight" [vocabulary, dim]
  virtual void on(nn::Parameter& parameter) = 0;  // "<name>"
  // linears of one input, called together in a block
  virtual void on_group(std::span<nn::Linear* const> linears) {
    for (nn::Linear* l : linears) on(*l);
  }
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelInfo& info() const = 0;
  virtual std::shared_ptr<StepValues> begin(Context& ctx, const nn::Batch& batch) = 0;
  virtual Hidden embed(Context& ctx, const nn::Batch& batch) = 0;
  virtual Hidden block(Context& ctx, int64_t layer, const Hidden& x, const nn::Batch& batch,
                       const StepValues& step) = 0;
  // All blocks of a decode step as one op, where the device has one that takes them; else undefined, and nothing has
  // happened.
  virtual Tensor all_blocks(Context&, const Tensor& /*x*/, const nn::Batch&, const StepValues&) { return {}; }
  // final norm of the rows that go on to the head (batch.output_rows, or all): [R, hidden]
  virtual Tensor final(Context& ctx, const Hidden& x, const nn::Batch& batch) = 0;
  virtual Head head() = 0;
  virtual void visit(ParameterVisitor& visitor) = 0;
  // checkpoint tensors this family leaves out on purpose (buffers older versions saved); printed by `inspect`
  virtual bool ignores(const std::string& tensor) const = 0;
  // a residual output projection (o_proj, down_proj): new models scale its init by 1/sqrt(2 · layers)
  virtual bool is_residual_output(const std::string& module) const = 0;

  // Activations and vector parameters have this dtype.
  DType dtype = DType::kF32;
};

struct ForwardOptions {
  // > 0: keep only what enters each group of so many blocks; compute the group again in the backward
  int64_t recompute_group = 0;
  // NEFTune (Jain et al. 2023): adds U(-1, 1) · alpha / sqrt(length · hidden) to the embeddings of each sequence
  float embedding_noise = 0;
  std::vector<Tensor>* taps = nullptr;  // when given: receives what enters layer 0, then leaves each layer
};
// embed, all blocks, final: hidden rows for the head [R, hidden]
Tensor forward(Context& ctx, Model& model, const nn::Batch& batch, const ForwardOptions& options = {});
// rows of f32 logits [R, vocabulary]; `batch` (the one of the forward) says which adapter each row has, where several
// are resident and one touches the head
Tensor logits(Context& ctx, Model& model, const Tensor& hidden, const nn::Batch* batch = nullptr);
// Cross entropy of `labels` [R] i32 at the rows, with whatever adapter sits on the head; see ops::head_loss. Full
// logits exist only when the head itself has a low-rank update.
ops::HeadLoss loss(Context& ctx, Model& model, const Tensor& hidden, const Tensor& labels, const Tensor& row_scale,
                   ops::HeadLossOptions options = {});

// One per family file src/models/<model_type>.cc: `const Family family_<stem>`.
struct Family {
  std::string_view name;                      // stem
  std::vector<std::string_view> model_types;  // values of config.json "model_type"
  std::string_view architecture;              // what `architectures` says in files we write
  std::unique_ptr<Model> (*build)(const nlohmann::ordered_json& config, const std::string& source);
};
std::span<const Family* const> families();
const Family& family_of(const nlohmann::ordered_json& config,
                        const std::string& source);  // Error(kUnsupported) lists the known
// shapes and names only; weights come from load_weights (loader.h)
std::unique_ptr<Model> build(const nlohmann::ordered_json& config, const std::string& source);

struct ParameterCount {
  int64_t total = 0, matrices = 0,
          embedding = 0;  // matrices: all Linear weights, the head included (tied counts once more here)
};
ParameterCount count_parameters(Model& model);

}  // namespace pmetal::models
