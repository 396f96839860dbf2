// Forward and backward of micro-batches. Where work can be recorded (ops/graph.h) a micro-batch is laid into buffers of
// fixed addresses and sizes: rows of tokens, rows with a loss and numbers of documents are rounded up, so that packings
// of about one size have one shape. A shape's first micro-batch runs kernel by kernel, its second is recorded, and from
// then on it is replayed. What is idle gets weight zero, whether it is replayed or not: the bits are the same.
#pragma once

#include <list>
#include <memory>

#include "ops/graph.h"
#include "train/sequence_loss.h"

namespace pmetal::train {

class MicroBatches {
 public:
  // Borrowed. While it lives parameters may change their values, not their places.
  MicroBatches(Context& ctx, models::Model& model, bool records = true);
  ~MicroBatches();

  struct Result {
    int64_t n_learned = 0;  // 0: nothing was computed
    // per learned row, in the order of the tokens; may be longer, and holds until the next run
    Tensor nll, correct, entropy;
    Tensor loss;  // [1] f32: sum of scale · nll
  };
  // Adds the gradients of scale · (sum of nll) to the leaves.
  Result run(const data::PackedSequence& packed, double scale, const LossOptions& options);

  struct Counts {
    int64_t replayed = 0, started = 0;  // micro-batches
    std::string reason;                 // why the last one that was started kernel by kernel could not be recorded
  };
  const Counts& counts() const { return counts_; }
  // Gives recorded work and its memory back, for others that need it, and records no more; false: there was none.
  bool forget();

 private:
  struct Layout {
    int64_t tokens, documents, longest, rows;
    bool draws;
    bool operator==(const Layout&) const = default;
  };
  struct Recorded;
  Result compute(const LossInputs& inputs, const LossOptions& options);
  Result start(const LossInputs& inputs, const LossOptions& options);
  Recorded* recorded(const Layout& layout);

  Context& ctx_;
  models::Model& model_;
  bool records_;
  Counts counts_;
  std::unique_ptr<ops::GraphMemory> memory_;
  std::list<Recorded> recorded_;  // most recently used first
};

}  // namespace pmetal::train
