// Runs a model's steps over a KV store, up to the logits. On a device that records (ops/graph.h), decode steps, in
// which every sequence gets one token, are recorded once per number of rows, reach of the page tables and adapters, and
// replayed from then on; numbers of rows are rounded up with idle rows. Elsewhere every step runs kernel by kernel.
#pragma once

#include <list>

#include "models/model.h"
#include "nn/kv_store.h"
#include "ops/graph.h"

namespace pmetal::infer {

class StepRunner {
 public:
  // All are borrowed. While it lives the model's weights and adapters do not change.
  // batch_invariant: a sequence's bits do not depend on its mates where the device's kernels for few rows and for many
  // differ: sequences that get one token run together on kernels that are the same for any number of rows
  // (Context::is_batch_invariant), every other one as a step of its own. On the CPU nothing changes.
  StepRunner(Context& ctx, models::Model& model, nn::KvStore& store, bool batch_invariant = false)
      : ctx_(ctx), model_(model), store_(store), is_batch_invariant_(batch_invariant) {}

  struct Result {
    Tensor logits;                   // [rows or more, vocabulary] f32 on the device, until the next run; undefined when
                                     // no row goes on to the head
    std::vector<int32_t> first_row;  // of each sequence; -1: none
  };
  // Error(kOutOfMemory) when pages lack: then nothing has changed.
  Result run(std::span<const nn::StepSequence> sequences);

 private:
  struct Recorded {
    int64_t rows = 0, pages = 0;
    std::vector<int32_t> adapters;
    bool fails = false;  // the model does something that cannot be recorded
    std::unique_ptr<nn::DecodeInputs> inputs;
    std::unique_ptr<ops::Graph> graph;
    Tensor logits;
  };
  Result run_invariant(std::span<const nn::StepSequence> sequences);
  Result run_together(std::span<const nn::StepSequence> sequences);
  Recorded* recorded(std::span<const nn::StepSequence> sequences);
  Tensor logits(const nn::Batch& batch);

  Context& ctx_;
  models::Model& model_;
  nn::KvStore& store_;
  bool is_batch_invariant_;
  std::unique_ptr<ops::GraphMemory> memory_;
  std::list<Recorded> recorded_;  // most recently used first
};

}  // namespace pmetal::infer
