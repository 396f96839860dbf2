// nn::Linear: the seam for weights. Holds a quant::Weight (frozen, any format) or a trainable dense leaf, a bias, and
// the adapters that are attached to it. Its identity is its Hugging Face module name. Architectures use it and thereby
// have LoRA, quantized weights and sharding without naming them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/batch.h"
#include "ops/linear.h"
#include "ops/lora_group.h"
#include "quant/weight.h"

namespace pmetal::nn {

class Linear;

// One adapter's part in one Linear (LoRA, DoRA ...). Resident adapters of a Linear are indexed by the batch's adapter
// numbers. Implementations live in adapters/.
class LinearAdapter {
 public:
  virtual ~LinearAdapter() = default;
  // y[rows, out] for x[rows, in], where `base` is what the Linear alone gives for these rows (bias included). `batch`
  // and `first_row` say which rows of the step these are (dropout identity).
  virtual Tensor apply(Context& ctx, const Batch& batch, int64_t first_row, const Linear& linear, const Tensor& x,
                       const Tensor& base) = 0;
  // Linear and adapter in one, from x alone, where that gives the better kernel; undefined where it does not: then
  // apply() gets what the Linear gives. Which it is depends on the adapter and the shapes, not on the rows.
  virtual Tensor apply_fused(Context&, const Batch&, int64_t /*first_row*/, const Linear&, const Tensor& /*x*/) {
    return {};
  }
  // a dense weight [out, in] used instead of the Linear's own, when that is all this adapter does
  virtual Tensor replacement() const { return {}; }
  // y = base + scale · (x Aᵀ) Bᵀ, when in this step it is that and nothing else
  struct LowRank {
    Tensor a, b;
    float scale;
  };
  virtual std::optional<LowRank> low_rank(const Context& /*ctx*/, const Batch& /*batch*/) const { return {}; }
};

// Weights of linears that share an input, with room for the updates of one adapter: see ops/lora_group.h.
struct UpdateGroup {
  ops::LoraGroup matrix;
  std::vector<int64_t> ranks;  // per linear; 0: none
  int adapter = 0;
};

class Linear {
 public:
  Linear() = default;
  Linear(std::string name, int64_t in, int64_t out, bool has_bias = false)
      : name_(std::move(name)), in_(in), out_(out), has_bias_(has_bias) {}

  // x[T, in] -> [T, out]
  Tensor forward(Context& ctx, const Batch& batch, const Tensor& x) const;
  // without adapters and with neither batch nor borders
  Tensor forward_base(Context& ctx, const Tensor& x) const;

  const std::string& name() const { return name_; }  // "model.layers.0.self_attn.q_proj"
  int64_t in() const { return in_; }
  int64_t out() const { return out_; }
  bool defined() const { return in_ > 0; }
  bool has_bias() const { return has_bias_; }  // the checkpoint must have one

  quant::Weight weight;  // frozen; undefined while `trainable` holds the values
  Tensor trainable;      // dense leaf [out, in], or undefined
  Tensor bias;           // [out] compute dtype, leaf when it trains; undefined when there is none
  // index = the batch's adapter number; null where an adapter does not touch this module
  std::vector<std::shared_ptr<LinearAdapter>> adapters;
  std::shared_ptr<const UpdateGroup> group;  // where the weight lies, after make_room_for_updates()

 private:
  std::string name_;
  int64_t in_ = 0, out_ = 0;
  bool has_bias_ = false;
};

// Lays the frozen dense weights of linears that share an input into one matrix with room for the low-rank updates of
// adapter `index`, whose ranks are given; the weights' own memory is given back. Does nothing where a GPU has no use
// for it (on the CPU, for other formats).
void make_room_for_updates(Context& ctx, std::span<Linear* const> linears, int index, std::span<const int64_t> ranks);
// Columns that the linears' input should have room for; 0 where it makes no difference.
int64_t room_for(const Context& ctx, const Linear& linear);

// Linears that share their input, called together. Those that make_room_for_updates() joined are one product with
// their updates in it. Plain ones whose weights lie side by side on a GPU are one product,
// whose columns the results then are: strided rows.
std::vector<Tensor> forward_group(Context& ctx, const Batch& batch, std::span<const Linear* const> linears,
                                  const Tensor& x);

class Embedding;

// One adapter's part in the look-up of tokens.
class EmbeddingAdapter {
 public:
  virtual ~EmbeddingAdapter() = default;
  // rows [T, dim] for the tokens `ids`, where `base` is what the table alone gives, `scale` included
  virtual Tensor apply(Context& ctx, const Embedding& embedding, const Tensor& ids, const Tensor& base,
                       float scale) = 0;
};

class Embedding {
 public:
  Embedding() = default;
  Embedding(std::string name, int64_t vocabulary, int64_t dim)
      : name_(std::move(name)), vocabulary_(vocabulary), dim_(dim) {}
  // the batch's tokens -> [T, dim]
  Tensor forward(Context& ctx, const Batch& batch, DType dtype, float scale = 1) const;
  const std::string& name() const { return name_; }
  int64_t vocabulary() const { return vocabulary_; }
  int64_t dim() const { return dim_; }
  quant::Weight weight;
  Tensor trainable;
  int64_t padding_index = -1;                               // this id's row gets no gradient from look-ups
  std::vector<std::shared_ptr<EmbeddingAdapter>> adapters;  // as in Linear

 private:
  std::string name_;
  int64_t vocabulary_ = 0, dim_ = 0;
};

// A norm's or another small vector parameter; a leaf when it trains.
struct Parameter {
  std::string name;  // "model.layers.0.input_layernorm.weight"
  Shape shape;
  float initial = 0;  // the value of a new model
  Tensor value;
};

}  // namespace pmetal::nn
