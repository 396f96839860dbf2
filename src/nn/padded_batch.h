// A rectangular batch with padding, as other frameworks have it, turned into a ragged step. Padding is dropped; only
// where a label hangs on a padded position (a left-padded row whose first token is scored) are padded rows run as
// the reference runs them: a query that may see nothing weighs all columns of its row equally.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "nn/batch.h"

namespace pmetal::nn {

struct PaddedBatch {
  Batch batch;                  // rows of the matrix are its sequences (kept columns; all columns when padding runs)
  std::vector<int64_t> row_of;  // per token of the batch: row · columns + column in the matrix
  std::vector<bool> kept;       // [rows · columns]: not padding
  // (token of the batch that predicts, label) for every scored position
  std::vector<int32_t> label_rows, labels;
  std::shared_ptr<Memory> memory;  // owns what batch.memory points to
};

// ids, mask, labels: [rows, columns]. An empty mask keeps everything; empty labels score nothing. Positions are column
// numbers. labels: -100 is ignored; the label in column t + 1 is predicted in column t.
PaddedBatch make_padded_batch(Context& ctx, int64_t rows, int64_t columns, std::span<const int64_t> ids,
                              std::span<const int64_t> mask, std::span<const int64_t> labels);

}  // namespace pmetal::nn
