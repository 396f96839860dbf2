#include "train/sequence_loss.h"

namespace pmetal::train {
namespace {

// One number per row that depends on the document's tokens and the position in it alone.
std::vector<int64_t> row_identities(const data::PackedSequence& packed) {
  std::vector<int64_t> ids(packed.ids.size());
  for (size_t d = 0; d + 1 < packed.cu_seqlens.size(); ++d) {
    uint64_t h = 0xcbf29ce484222325u;
    const size_t begin = static_cast<size_t>(packed.cu_seqlens[d]), end = static_cast<size_t>(packed.cu_seqlens[d + 1]);
    for (size_t i = begin; i < end; ++i) h = (h ^ static_cast<uint32_t>(packed.ids[i])) * 0x100000001b3u;
    for (size_t i = begin; i < end; ++i) ids[i] = static_cast<int64_t>(h + 0x9e3779b97f4a7c15u * (i - begin + 1));
  }
  return ids;
}

nn::Batch make_batch(Context& ctx, const data::PackedSequence& packed, const LossValues& values,
                     const LossOptions& options) {
  std::vector<nn::SequenceInput> sequences;
  for (size_t d = 0; d + 1 < packed.cu_seqlens.size(); ++d) {
    const size_t begin = static_cast<size_t>(packed.cu_seqlens[d]),
                 n = static_cast<size_t>(packed.cu_seqlens[d + 1]) - begin;
    sequences.push_back({std::span(packed.ids).subspan(begin, n), std::span(packed.positions).subspan(begin, n)});
  }
  nn::Batch batch = nn::make_batch(ctx, sequences);
  batch.dropout.seed = options.seed;
  batch.dropout.step = options.step;
  if (!values.row_ids.empty())
    batch.row_ids = ops::to_device(
        ctx, host_tensor<int64_t>(values.row_ids, Shape{static_cast<int64_t>(values.row_ids.size())}, DType::kI64));
  return batch;
}

}  // namespace

LossValues loss_values(const data::PackedSequence& packed, double scale, const LossOptions& options) {
  LossValues v;
  for (size_t d = 0; d + 1 < packed.cu_seqlens.size(); ++d)
    for (int32_t t = packed.cu_seqlens[d] + 1; t < packed.cu_seqlens[d + 1]; ++t)
      if (packed.labels[static_cast<size_t>(t)] != data::kIgnore) {
        v.rows.push_back(t - 1);
        v.labels.push_back(packed.labels[static_cast<size_t>(t)]);
      }
  v.n_learned = static_cast<int64_t>(v.rows.size());
  if (v.rows.empty()) return v;
  v.tokens = packed.ids;
  v.positions = packed.positions;
  v.borders = packed.cu_seqlens;
  for (size_t d = 0; d + 1 < v.borders.size(); ++d) v.lengths.push_back(v.borders[d + 1] - v.borders[d]);
  if (options.draws || options.embedding_noise > 0) v.row_ids = row_identities(packed);
  v.row_scale.assign(v.rows.size(), static_cast<float>(scale));
  return v;
}

SequenceLoss sequence_loss(Context& ctx, models::Model& model, const LossInputs& inputs, const LossOptions& options) {
  SequenceLoss result;
  result.n_learned = inputs.n_learned;
  models::ForwardOptions forward;
  forward.recompute_group = options.recompute_group;
  forward.embedding_noise = options.embedding_noise;
  const Tensor hidden = models::forward(ctx, model, inputs.batch, forward);
  result.head = models::loss(ctx, model, hidden, inputs.labels, inputs.row_scale, options.head);
  result.loss = result.head.loss;
  return result;
}

SequenceLoss sequence_loss(Context& ctx, models::Model& model, const data::PackedSequence& packed, double scale,
                           const LossOptions& options) {
  const LossValues values = loss_values(packed, scale, options);
  if (values.n_learned == 0) return {};
  const Shape n{values.n_learned};
  LossInputs inputs{make_batch(ctx, packed, values, options),
                    ops::to_device(ctx, host_tensor<int32_t>(values.labels, n, DType::kI32)),
                    ops::to_device(ctx, host_tensor<float>(values.row_scale, n, DType::kF32)), values.n_learned};
  inputs.batch.output_rows = ops::to_device(ctx, host_tensor<int32_t>(values.rows, n, DType::kI32));
  return sequence_loss(ctx, model, inputs, options);
}

}  // namespace pmetal::train
