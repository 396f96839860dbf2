// What an adapter does to the token table: a low-rank update of its rows (LoRA, rsLoRA, DoRA), a whole replaced table,
// or some rows replaced (trained tokens). And what such an adapter does to a head that is tied to the table.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "adapters/adapter.h"

namespace pmetal::adapters {

// [columns] f32: sqrt of the sum of squares of each column of W + scale · (at · bᵀ)
std::vector<float> column_norms(int64_t rows, int64_t columns, const RowReader& weight, const std::vector<float>& at,
                                const std::vector<float>& b, int64_t rank, float scale, ThreadPool& threads);

class EmbeddingModule final : public nn::EmbeddingAdapter {
 public:
  Tensor apply(Context& ctx, const nn::Embedding& embedding, const Tensor& ids, const Tensor& base,
               float scale) override;
  bool has_lora() const { return at.defined(); }
  // the table that is looked up instead of the model's own; undefined when the update is low-rank
  Tensor table(Context& ctx, const nn::Embedding& embedding);

  // The file keeps A as [r, vocabulary]; here it lies by token: [vocabulary, r], so that a look-up reads one row.
  Tensor at, b;      // b: [dim, r]
  Tensor magnitude;  // [dim] or undefined (DoRA, which norms the columns of a table)
  Tensor whole;      // [vocabulary, dim] or undefined (modules_to_save)
  Tensor tokens;     // [n, dim] or undefined: the rows of `token_ids` (trainable_token_indices); fixed
  std::vector<int64_t> token_ids;
  float scale = 1;
  bool norms_stale = true;

 private:
  void update_norms(Context& ctx, const nn::Embedding& embedding);
  Tensor inverse_norms_;  // [dim] f32
  Tensor table_;          // of trained tokens
};

// The head of a model whose head is the table, where the adapter asks that both stay one matrix (ensure_weight_tying,
// trained tokens).
class TiedHeadModule final : public nn::LinearAdapter {
 public:
  TiedHeadModule(std::shared_ptr<EmbeddingModule> source, const nn::Embedding& embedding)
      : source_(std::move(source)), embedding_(embedding) {}
  Tensor apply(Context& ctx, const nn::Batch& batch, int64_t first_row, const nn::Linear& linear, const Tensor& x,
               const Tensor& base) override;

 private:
  std::shared_ptr<EmbeddingModule> source_;
  const nn::Embedding& embedding_;
};

// [rows, columns] f32 of a table or a head, on the host, whatever its format
void read_rows(const quant::Weight& weight, const Tensor& trainable, int64_t begin, int64_t n, float* rows);

}  // namespace pmetal::adapters
