#include "nn/padded_batch.h"

#include "ops/linear.h"

namespace pmetal::nn {
namespace {

Tensor i32(Context& ctx, const std::vector<int32_t>& values) {
  return ops::to_device(ctx, host_tensor<int32_t>(values, Shape{static_cast<int64_t>(values.size())}, DType::kI32));
}

// Real rows attend to the real rows of their matrix row. A padded row sees nothing: the reference adds the smallest
// float to all of its scores, so that they are equal and it weighs all columns of its row the same, while the gradient
// passes through to the scores. Padded rows are few and this is a check against others: one small product per head.
class PaddedRows final : public Memory {
 public:
  PaddedRows(Context& ctx, int64_t columns, const std::vector<bool>& kept) : columns_(columns) {
    const int64_t rows = static_cast<int64_t>(kept.size()) / columns;
    std::vector<int32_t> real, all_padded, cu_real{0}, len_real;
    for (int64_t r = 0; r < rows; ++r) {
      std::vector<int32_t> padded;
      for (int64_t c = 0; c < columns; ++c)
        (kept[static_cast<size_t>(r * columns + c)] ? real : padded).push_back(static_cast<int32_t>(r * columns + c));
      len_real.push_back(static_cast<int32_t>(real.size()) - cu_real.back());
      cu_real.push_back(static_cast<int32_t>(real.size()));
      if (padded.empty()) continue;
      padded_.emplace_back(r, i32(ctx, padded));
      all_padded.insert(all_padded.end(), padded.begin(), padded.end());
    }
    total_ = rows * columns;
    real_ = i32(ctx, real);
    all_padded_ = i32(ctx, all_padded);
    real_rows_ = {i32(ctx, cu_real), i32(ctx, len_real), i32(ctx, cu_real), {}, columns, columns};
  }

  Tensor append_and_attend(Context& ctx, int, const Tensor& q, const Tensor& k, const Tensor& v, const Batch&,
                           const ops::AttentionOptions& options) override {
    const auto flat = [&](const Tensor& x) { return ops::reshape(ctx, x, {x.dim(0), x.dim(1) * x.dim(2)}); };
    const auto real = [&](const Tensor& x) {
      return ops::reshape(ctx, ops::gather_rows(ctx, flat(x), real_), {real_.dim(0), x.dim(1), x.dim(2)});
    };
    const Tensor seen = ops::attention(ctx, real(q), real(k), real(v), real_rows_, options);
    std::vector<Tensor> blind;
    for (const auto& [row, padded] : padded_) {
      std::vector<Tensor> heads;
      const Tensor q_rows = ops::gather_rows(ctx, flat(q), padded);
      const Tensor k_rows = ops::narrow(ctx, flat(k), 0, row * columns_, columns_);
      const Tensor v_rows = ops::narrow(ctx, flat(v), 0, row * columns_, columns_);
      for (int64_t h = 0; h < q.dim(1); ++h) {
        const int64_t kv = h / (q.dim(1) / k.dim(1));
        const auto columns = [&](const Tensor& x, int64_t head, int64_t d) {
          return ops::contiguous(ctx, ops::narrow(ctx, x, 1, head * d, d));
        };
        const Tensor score =
            ops::matmul(ctx, columns(q_rows, h, q.dim(2)), columns(k_rows, kv, k.dim(2)), false, true, options.scale);
        const Tensor even = ops::softmax(ctx, ops::sub(ctx, score, ops::stop_gradient(score)));
        heads.push_back(ops::matmul(ctx, even, columns(v_rows, kv, v.dim(2))));
      }
      blind.push_back(ops::concat_columns(ctx, heads));
    }
    const Tensor all = ops::add(ctx, ops::scatter_rows(ctx, flat(seen), real_, total_),
                                ops::scatter_rows(ctx, ops::concat_rows(ctx, blind), all_padded_, total_));
    return ops::reshape(ctx, all, {total_, q.dim(1), v.dim(2)});
  }

 private:
  int64_t total_ = 0, columns_;
  Tensor real_, all_padded_;
  ops::AttentionRows real_rows_;
  std::vector<std::pair<int64_t, Tensor>> padded_;  // matrix row, its padded tokens
};

}  // namespace

PaddedBatch make_padded_batch(Context& ctx, int64_t rows, int64_t columns, std::span<const int64_t> ids,
                              std::span<const int64_t> mask, std::span<const int64_t> labels) {
  PaddedBatch p;
  const size_t n = static_cast<size_t>(rows * columns);
  p.kept.resize(n);
  for (size_t i = 0; i < n; ++i) p.kept[i] = mask.empty() || mask[i] != 0;
  const auto scored = [&](size_t i) {
    return !labels.empty() && i % static_cast<size_t>(columns) != 0 && labels[i] != -100;
  };
  bool padding_runs = false;
  for (size_t i = 1; i < n; ++i) padding_runs |= scored(i) && !p.kept[i - 1];

  std::vector<std::vector<int32_t>> tokens(static_cast<size_t>(rows)), positions(static_cast<size_t>(rows));
  std::vector<SequenceInput> sequences;
  std::vector<int32_t> token_of(n, -1);
  for (int64_t r = 0; r < rows; ++r) {
    auto& t = tokens[static_cast<size_t>(r)];
    auto& q = positions[static_cast<size_t>(r)];
    for (int64_t c = 0; c < columns; ++c) {
      const size_t i = static_cast<size_t>(r * columns + c);
      if (!p.kept[i] && !padding_runs) continue;
      token_of[i] = static_cast<int32_t>(p.row_of.size());
      p.row_of.push_back(static_cast<int64_t>(i));
      t.push_back(static_cast<int32_t>(ids[i]));
      q.push_back(static_cast<int32_t>(c));
    }
    // the reference takes the width of the batch for rope that depends on length
    if (!t.empty()) sequences.push_back({.tokens = t, .positions = q, .rope_length = static_cast<int32_t>(columns)});
  }
  p.batch = make_batch(ctx, sequences);
  if (padding_runs) {
    p.memory = std::make_shared<PaddedRows>(ctx, columns, p.kept);
    p.batch.memory = p.memory.get();
  }
  for (size_t i = 1; i < n; ++i) {
    if (!scored(i)) continue;
    PMETAL_ASSERT(token_of[i - 1] >= 0);
    p.label_rows.push_back(token_of[i - 1]);
    p.labels.push_back(static_cast<int32_t>(labels[i]));
  }
  return p;
}

}  // namespace pmetal::nn
