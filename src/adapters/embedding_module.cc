#include "adapters/embedding_module.h"

#include <algorithm>
#include <cmath>

#include "adapters/lora_module.h"
#include "ops/device.h"
#include "ops/embedding.h"
#include "ops/lora.h"

namespace pmetal::adapters {

void read_rows(const quant::Weight& weight, const Tensor& trainable, int64_t begin, int64_t n, float* rows) {
  if (weight.defined() && !trainable.defined()) return weight.format->decode_rows(weight, begin, begin + n, rows);
  const Tensor part = trainable.narrowed(0, begin, n);
  convert(part.bytes(), part.dtype(), rows, DType::kF32, part.numel());
}

// Blocks of rows add up in order, whatever thread summed them.
std::vector<float> column_norms(int64_t rows, int64_t columns, const RowReader& weight, const std::vector<float>& at,
                                const std::vector<float>& b, int64_t rank, float scale, ThreadPool& threads) {
  constexpr int64_t kBlock = 256;
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  std::vector<double> sums(static_cast<size_t>(blocks * columns));
  threads.parallel_for(blocks, 1, [&](int64_t first, int64_t last) {
    std::vector<float> w(static_cast<size_t>(kBlock * columns));
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = block * kBlock, n = std::min(kBlock, rows - begin);
      weight(begin, n, w.data());
      double* sum = sums.data() + block * columns;
      for (int64_t i = 0; i < n; ++i)
        for (int64_t k = 0; k < columns; ++k) {
          float delta = 0;
          for (int64_t j = 0; j < rank; ++j)
            delta += at[static_cast<size_t>((begin + i) * rank + j)] * b[static_cast<size_t>(k * rank + j)];
          const double v = static_cast<double>(w[static_cast<size_t>(i * columns + k)]) + double{scale} * delta;
          sum[k] += v * v;
        }
    }
  });
  std::vector<float> norms(static_cast<size_t>(columns));
  for (int64_t k = 0; k < columns; ++k) {
    double sum = 0;
    for (int64_t block = 0; block < blocks; ++block) sum += sums[static_cast<size_t>(block * columns + k)];
    norms[static_cast<size_t>(k)] = static_cast<float>(std::sqrt(sum));
  }
  return norms;
}

void EmbeddingModule::update_norms(Context& ctx, const nn::Embedding& embedding) {
  TapeScope off(ctx, nullptr);
  norms_stale = false;
  if (ctx.device().is_meta()) {
    inverse_norms_ = ctx.empty({embedding.dim()}, DType::kF32);
    return;
  }
  const quant::Weight weight = embedding.weight.defined() ? ops::host_copy(embedding.weight) : quant::Weight{};
  const Tensor trainable = embedding.trainable.defined() ? ops::host_copy(embedding.trainable.detached()) : Tensor();
  std::vector<float> norms = column_norms(
      embedding.vocabulary(), embedding.dim(),
      [&](int64_t begin, int64_t n, float* rows) { read_rows(weight, trainable, begin, n, rows); }, host_floats(at),
      host_floats(b), at.dim(1), scale, ctx.threads());
  for (float& v : norms) v = 1 / v;
  inverse_norms_ = ops::to_device(ctx, host_tensor<float>(norms, Shape{embedding.dim()}, DType::kF32));
}

Tensor EmbeddingModule::table(Context& ctx, const nn::Embedding& embedding) {
  if (whole.defined()) return whole;
  if (!tokens.defined() || table_.defined()) return table_;
  TapeScope off(ctx, nullptr);
  const int64_t n = embedding.vocabulary(), dim = embedding.dim();
  std::vector<float> rows(static_cast<size_t>(n * dim));
  if (!ctx.device().is_meta()) {
    const quant::Weight weight = embedding.weight.defined() ? ops::host_copy(embedding.weight) : quant::Weight{};
    const Tensor trainable = embedding.trainable.defined() ? ops::host_copy(embedding.trainable.detached()) : Tensor();
    read_rows(weight, trainable, 0, n, rows.data());
  }
  const std::vector<float> own = host_floats(tokens);
  for (size_t i = 0; i < token_ids.size(); ++i)
    std::copy_n(own.begin() + static_cast<int64_t>(i) * dim, dim, rows.begin() + token_ids[i] * dim);
  table_ = ops::cast(ctx, ops::to_device(ctx, host_tensor<float>(rows, Shape{n, dim}, DType::kF32)), tokens.dtype());
  return table_;
}

Tensor EmbeddingModule::apply(Context& ctx, const nn::Embedding& embedding, const Tensor& ids, const Tensor& base,
                              float table_scale) {
  if (const Tensor own = table(ctx, embedding); own.defined())
    return ops::embedding_dense(ctx, ids, own, base.dtype(), table_scale, embedding.padding_index);
  const Tensor rows = ops::embedding_dense(ctx, ids, at, at.dtype(), 1, embedding.padding_index);
  Tensor update = ops::affine(ctx, ops::linear_dense(ctx, rows, b, {}, at.dtype()), scale * table_scale);
  if (update.dtype() != base.dtype()) update = ops::cast(ctx, update, base.dtype());
  const Tensor sum = ops::add(ctx, base, update);
  if (!magnitude.defined()) return sum;
  if (norms_stale) update_norms(ctx, embedding);
  return ops::mul_row(ctx, sum, ops::mul(ctx, magnitude, ops::cast(ctx, inverse_norms_, magnitude.dtype())));
}

Tensor TiedHeadModule::apply(Context& ctx, const nn::Batch&, int64_t, const nn::Linear&, const Tensor& x,
                             const Tensor& base) {
  if (const Tensor own = source_->table(ctx, embedding_); own.defined())
    return ops::linear_dense(ctx, x, own, {}, base.dtype());
  // logits of (W + s · at bᵀ) are those of W plus s · (x b) atᵀ
  const Tensor turned = ops::matmul(ctx, identity(ctx, source_->b.dim(1), source_->b.dtype()), source_->b, false, true);
  return ops::lora(ctx, x, base, turned, source_->at, source_->scale);
}

}  // namespace pmetal::adapters
