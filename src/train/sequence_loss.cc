#include "train/sequence_loss.h"

namespace pmetal::train {
namespace {

// One number per row that depends on the document's tokens and the position in it alone.
Tensor row_identities(Context& ctx, const data::PackedSequence& packed) {
  std::vector<int64_t> ids(packed.ids.size());
  for (size_t d = 0; d + 1 < packed.cu_seqlens.size(); ++d) {
    uint64_t h = 0xcbf29ce484222325u;
    const size_t begin = static_cast<size_t>(packed.cu_seqlens[d]), end = static_cast<size_t>(packed.cu_seqlens[d + 1]);
    for (size_t i = begin; i < end; ++i) h = (h ^ static_cast<uint32_t>(packed.ids[i])) * 0x100000001b3u;
    for (size_t i = begin; i < end; ++i) ids[i] = static_cast<int64_t>(h + 0x9e3779b97f4a7c15u * (i - begin + 1));
  }
  return ops::to_device(ctx, host_tensor<int64_t>(ids, Shape{static_cast<int64_t>(ids.size())}, DType::kI64));
}

}  // namespace

nn::Batch make_batch(Context& ctx, const data::PackedSequence& packed, const LossOptions& options) {
  std::vector<nn::SequenceInput> sequences;
  for (size_t d = 0; d + 1 < packed.cu_seqlens.size(); ++d) {
    const size_t begin = static_cast<size_t>(packed.cu_seqlens[d]),
                 n = static_cast<size_t>(packed.cu_seqlens[d + 1]) - begin;
    sequences.push_back({std::span(packed.ids).subspan(begin, n), std::span(packed.positions).subspan(begin, n)});
  }
  nn::Batch batch = nn::make_batch(ctx, sequences);
  batch.dropout.seed = options.seed;
  batch.dropout.step = options.step;
  if (options.draws || options.embedding_noise > 0) batch.row_ids = row_identities(ctx, packed);
  return batch;
}

SequenceLoss sequence_loss(Context& ctx, models::Model& model, const data::PackedSequence& packed, double scale,
                           const LossOptions& options) {
  std::vector<int32_t> rows, labels;
  for (size_t d = 0; d + 1 < packed.cu_seqlens.size(); ++d)
    for (int32_t t = packed.cu_seqlens[d] + 1; t < packed.cu_seqlens[d + 1]; ++t)
      if (packed.labels[static_cast<size_t>(t)] != data::kIgnore) {
        rows.push_back(t - 1);
        labels.push_back(packed.labels[static_cast<size_t>(t)]);
      }
  SequenceLoss result;
  result.n_learned = static_cast<int64_t>(rows.size());
  if (rows.empty()) return result;
  nn::Batch batch = make_batch(ctx, packed, options);
  const Shape n{result.n_learned};
  batch.output_rows = ops::to_device(ctx, host_tensor<int32_t>(rows, n, DType::kI32));
  models::ForwardOptions forward;
  forward.recompute_group = options.recompute_group;
  forward.embedding_noise = options.embedding_noise;
  const Tensor hidden = models::forward(ctx, model, batch, forward);
  const std::vector<float> row_scale(rows.size(), static_cast<float>(scale));
  result.head = models::loss(ctx, model, hidden, ops::to_device(ctx, host_tensor<int32_t>(labels, n, DType::kI32)),
                             ops::to_device(ctx, host_tensor<float>(row_scale, n, DType::kF32)), options.head);
  result.loss = result.head.loss;
  return result;
}

}  // namespace pmetal::train
