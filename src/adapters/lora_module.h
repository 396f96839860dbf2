// What an adapter does inside one Linear: LoRA / rsLoRA / DoRA update, a trained bias, or a whole replaced weight.
#pragma once

#include <string>
#include <vector>

#include "models/model.h"

namespace pmetal::adapters {

class LoraModule final : public nn::LinearAdapter {
 public:
  Tensor apply(Context& ctx, const nn::Batch& batch, int64_t first_row, const nn::Linear& linear, const Tensor& x,
               const Tensor& base) override;
  // LoRA on a frozen weight, while the adapter trains: the same for any step, so that recomputed blocks, validation and
  // rollouts have its bits
  Tensor apply_fused(Context& ctx, const nn::Batch& batch, int64_t first_row, const nn::Linear& linear,
                     const Tensor& x) override;
  std::optional<LowRank> low_rank(const Context& ctx, const nn::Batch& batch) const override;
  Tensor replacement() const override { return bias.defined() ? Tensor() : whole; }
  // DoRA: row norms of W + scale · B A, a constant of the gradient
  void update_norms(Context& ctx, const nn::Linear& linear);

  bool has_lora() const { return a.defined(); }

  Tensor a, b;       // [r, in], [out, r]
  Tensor b_bias;     // [out] or undefined (lora_bias)
  Tensor magnitude;  // [out] or undefined (DoRA)
  Tensor bias;       // [out] or undefined: replaces the Linear's own
  Tensor whole;      // [out, in] or undefined: replaces the weight (modules_to_save)
  Tensor tokens;     // [n, in] or undefined: replaces the rows `token_ids` (trainable_token_indices on a head); fixed
  std::vector<int64_t> token_ids;
  float scale = 1, dropout = 0;
  uint32_t number = 0;  // identity for dropout
  bool norms_stale = true;

 private:
  bool drops_rows(const Context& ctx, const nn::Batch& batch) const;
  // x as the low-rank product sees it: after dropout, where there is some
  Tensor dropped(Context& ctx, const nn::Batch& batch, int64_t first_row, const Tensor& x) const;
  // what is added to every row of `y`
  Tensor with_biases(Context& ctx, const nn::Linear& linear, Tensor y) const;
  Tensor with_tokens(Context& ctx, const nn::Linear& linear) const;

  Tensor weight_norms_squared_;  // [out] f32, of the frozen weight
  Tensor inverse_norms_;         // [out] compute dtype
};

// the values as f32 on the host
std::vector<float> host_floats(const Tensor& t);
Tensor identity(Context& ctx, int64_t n, DType dtype);  // [n, n]

// [out] f32: sum of squares of each row, on the host
std::vector<float> row_norms_squared(Context& ctx, const nn::Linear& linear);

}  // namespace pmetal::adapters
