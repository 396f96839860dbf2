// How much memory training takes, before it begins: the real step is run on a meta context (shapes without storage),
// whose allocator counts what the real one would.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "models/checkpoint.h"
#include "train/sequence_loss.h"
#include "train/trainer.h"

namespace pmetal::train {

struct PlanRequest {
  Device device = kCpu;                 // that the step will run on
  void* stream = nullptr;               // its queue of work, where it is a GPU of this machine
  std::shared_ptr<ThreadPool> threads;  // as many as will run: kernels take workspace for each
  models::LoadOptions load;             // for_training: all parameters train
  int64_t tokens = 0, sequences = 1;    // of one micro-batch: the longest that may come, all learned
  LossOptions loss;
  // makes what is trained of a model on the meta context
  std::function<std::unique_ptr<TrainTarget>(Context& ctx, models::Model& model)> target;
};

struct MemoryPlan {         // bytes
  int64_t weights = 0;      // the frozen model; 0 where all parameters train
  int64_t parameters = 0;   // what trains: values, f32 masters, gradients and moments; generation: the KV cache
  int64_t activations = 0;  // most of what a step needs beside them
  int64_t total = 0;        // at the peak, with what the allocator keeps for reuse
};

// generation with `request.tokens` tokens of context in each of `request.sequences`; target and loss are not asked
MemoryPlan plan_inference(const models::Checkpoint& checkpoint, const PlanRequest& request);
MemoryPlan plan_training(const models::Checkpoint& checkpoint, const PlanRequest& request);

// What fits into `free` bytes, tried in this order: the whole batch, smaller micro-batches (divisors of the batch), one
// sequence at a time with blocks computed again in the backward pass, `group` as one. The last is taken where nothing
// fits.
struct StepChoice {
  int64_t batch_size = 1;       // sequences of one micro-batch
  int64_t recompute_group = 0;  // as in LossOptions
  bool fits = true;
  MemoryPlan plan;
};
StepChoice choose_step(const models::Checkpoint& checkpoint, PlanRequest request, int64_t free, int64_t group = 1);

}  // namespace pmetal::train
