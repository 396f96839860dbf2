// The loss of packed sequences: forward, then cross entropy of the next token on the rows that have a label.
#pragma once

#include "data/packing.h"
#include "models/model.h"
#include "ops/head_loss.h"

namespace pmetal::train {

struct LossOptions {
  int64_t recompute_group = 0;  // see models::ForwardOptions
  float embedding_noise = 0;
  ops::HeadLossOptions head;
  // dropout identity; ids of rows are hashes of document and position, so they do not depend on packing
  uint64_t seed = 0;
  uint32_t step = 0;
  bool draws = false;  // some module draws random numbers: row ids are needed
};

struct SequenceLoss {
  Tensor loss;         // [1]: scale · sum of nll over learned tokens; differentiable
  ops::HeadLoss head;  // per learned token
  int64_t n_learned = 0;
};

// What forward and loss read, on the host: documents of one or more packed sequences laid end to end.
struct LossValues {
  std::vector<int32_t> tokens, positions, borders, lengths;  // [T], [T], [documents + 1], [documents]
  std::vector<int64_t> row_ids;                              // [T], or nothing where nothing draws
  std::vector<int32_t> rows, labels;                         // rows with a loss, and their labels
  std::vector<float> row_scale;
  int64_t n_learned = 0;
};
LossValues loss_values(const data::PackedSequence& packed, double scale, const LossOptions& options);

// The same where the model runs.
struct LossInputs {
  nn::Batch batch;
  Tensor labels, row_scale;
  int64_t n_learned = 0;
};

// `scale`: usually 1 / (learned tokens of the whole accumulated batch). Without learned tokens the loss is undefined.
SequenceLoss sequence_loss(Context& ctx, models::Model& model, const data::PackedSequence& packed, double scale,
                           const LossOptions& options = {});
SequenceLoss sequence_loss(Context& ctx, models::Model& model, const LossInputs& inputs, const LossOptions& options);

}  // namespace pmetal::train
