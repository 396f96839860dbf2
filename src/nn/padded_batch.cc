#include "nn/padded_batch.h"

namespace pmetal::nn {
namespace {

Tensor i32(Context& ctx, const std::vector<int32_t>& values) {
  return ops::to_device(ctx, host_tensor<int32_t>(values, Shape{static_cast<int64_t>(values.size())}, DType::kI32));
}

// Real rows attend to the real rows of their matrix row; padded rows weigh all columns of theirs equally, whatever mask
// and scale: that is what adding the smallest float to every score comes to.
class PaddedRows final : public Memory {
 public:
  PaddedRows(Context& ctx, int64_t columns, const std::vector<bool>& kept) {
    const int64_t rows = static_cast<int64_t>(kept.size()) / columns;
    std::vector<int32_t> real, padded, cu_real{0}, cu_padded{0}, cu_all{0}, len_real, len_all;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c)
        (kept[static_cast<size_t>(r * columns + c)] ? real : padded).push_back(static_cast<int32_t>(r * columns + c));
      len_real.push_back(static_cast<int32_t>(real.size()) - cu_real.back());
      len_all.push_back(static_cast<int32_t>(columns));
      cu_real.push_back(static_cast<int32_t>(real.size()));
      cu_padded.push_back(static_cast<int32_t>(padded.size()));
      cu_all.push_back(static_cast<int32_t>((r + 1) * columns));
    }
    total_ = rows * columns;
    real_ = i32(ctx, real);
    padded_ = i32(ctx, padded);
    real_rows_ = {i32(ctx, cu_real), i32(ctx, len_real), i32(ctx, cu_real), {}, columns, columns};
    padded_rows_ = {i32(ctx, cu_padded), i32(ctx, len_all), i32(ctx, cu_all), {}, columns, columns};
  }

  Tensor append_and_attend(Context& ctx, int, const Tensor& q, const Tensor& k, const Tensor& v, const Batch&,
                           const ops::AttentionOptions& options) override {
    const auto take = [&](const Tensor& x, const Tensor& rows) {
      const Tensor flat = ops::gather_rows(ctx, ops::reshape(ctx, x, {x.dim(0), x.dim(1) * x.dim(2)}), rows);
      return ops::reshape(ctx, flat, {rows.dim(0), x.dim(1), x.dim(2)});
    };
    const auto put = [&](const Tensor& x, const Tensor& rows) {
      return ops::scatter_rows(ctx, ops::reshape(ctx, x, {x.dim(0), x.dim(1) * x.dim(2)}), rows, total_);
    };
    const Tensor seen = ops::attention(ctx, take(q, real_), take(k, real_), take(v, real_), real_rows_, options);
    ops::AttentionOptions even;
    even.scale = 0;
    even.mask.kind = ops::MaskKind::kBidirectional;
    const Tensor blind = ops::attention(ctx, take(q, padded_), k, v, padded_rows_, even);
    const Tensor all = ops::add(ctx, put(seen, real_), put(blind, padded_));
    return ops::reshape(ctx, all, {total_, q.dim(1), v.dim(2)});
  }

 private:
  int64_t total_ = 0;
  Tensor real_, padded_;
  ops::AttentionRows real_rows_, padded_rows_;
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
