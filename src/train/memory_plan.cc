#include "train/memory_plan.h"

#include "infer/kv.h"

namespace pmetal::train {
namespace {

struct WeightBytes final : models::ParameterVisitor {
  int64_t bytes = 0;
  void weight(const quant::Weight& w) {  // exactly: the allocator of a plan rounds
    if (!w.defined()) return;
    for (const quant::PlaneLayout& p : w.format->layout(w.out, w.in)) bytes += p.size_bytes;
  }
  void on(nn::Linear& l) override {
    weight(l.weight);
    if (l.bias.defined()) bytes += l.bias.size_bytes();
  }
  void on(nn::Embedding& e) override { weight(e.weight); }
  void on(nn::Parameter& p) override { bytes += p.value.size_bytes(); }
};

data::PackedSequence longest(int64_t tokens, int64_t sequences) {
  data::PackedSequence packed;
  data::Example example;
  example.ids.assign(static_cast<size_t>(tokens), 0);
  example.labels = example.ids;
  for (int64_t s = 0; s < sequences; ++s) packed.append(example);
  return packed;
}

constexpr int64_t kPromptChunk = 512;  // tokens of one step, as the engine cuts prompts

}  // namespace

MemoryPlan plan_inference(const models::Checkpoint& checkpoint, const PlanRequest& request) {
  Context ctx(request.threads, make_meta_allocator());
  ctx.plan_for(request.device);
  ctx.set_stream(request.stream);
  const auto model = models::build(checkpoint.config(), checkpoint.source());
  models::load_weights(ctx, *model, checkpoint, request.load);
  WeightBytes weights;
  model->visit(weights);
  MemoryPlan plan;
  plan.weights = weights.bytes;
  const int64_t loaded = ctx.allocator().stats().current_bytes;
  nn::KvStore store = infer::make_kv_store(ctx, *model, request.sequences * nn::KvStore::pages_for(request.tokens));
  const int64_t kept = ctx.allocator().stats().current_bytes - loaded;
  std::vector<nn::SequenceState> states;
  for (int64_t s = 0; s < request.sequences; ++s) states.emplace_back(store);
  const auto advance = [&](int64_t n) {
    const std::vector<int32_t> ids(static_cast<size_t>(n));
    std::vector<nn::StepSequence> steps;
    for (nn::SequenceState& state : states) steps.push_back({.state = &state, .tokens = ids});
    const nn::KvStore::Step step = store.begin_step(ctx, steps);
    models::logits(ctx, *model, models::forward(ctx, *model, step.batch), &step.batch);
  };
  for (int64_t at = 0; at < request.tokens; at += kPromptChunk) advance(std::min(kPromptChunk, request.tokens - at));
  const AllocatorStats stats = ctx.allocator().stats();
  plan.parameters = kept;
  plan.activations = stats.peak_bytes - loaded - kept;
  plan.total = plan.weights + stats.reserved_bytes - loaded;
  return plan;
}

MemoryPlan plan_training(const models::Checkpoint& checkpoint, const PlanRequest& request) {
  Context ctx(request.threads, make_meta_allocator());
  ctx.plan_for(request.device);
  ctx.set_stream(request.stream);
  const auto model = models::build(checkpoint.config(), checkpoint.source());
  models::load_weights(ctx, *model, checkpoint, request.load);
  MemoryPlan plan;
  if (!request.load.for_training) {
    WeightBytes weights;
    model->visit(weights);
    plan.weights = weights.bytes;
  }
  const int64_t loaded = request.load.for_training ? 0 : ctx.allocator().stats().current_bytes;

  const std::unique_ptr<TrainTarget> target = request.target(ctx, *model);
  FlatParameters parameters(ctx, target->trainables());
  const int64_t beginning = ctx.allocator().stats().peak_bytes - loaded;  // values beside their copies in flat buffers
  ctx.allocator().release_cached();
  plan.parameters = ctx.allocator().stats().current_bytes - loaded;

  const data::PackedSequence packed = longest(request.tokens, request.sequences);
  ctx.allocator().reset_peak();
  for (int64_t step = 1; step <= 2; ++step) {
    parameters.zero_gradients(ctx);
    Tape tape = ops::make_tape(ctx);
    {
      TapeScope recording(ctx, &tape);
      const SequenceLoss loss = sequence_loss(ctx, *model, packed, 1, request.loss);
      const Tensor seed = ctx.empty({1}, DType::kF32);
      tape.backward(ctx, loss.loss, seed);
    }
    parameters.gradient_norm(ctx);
    parameters.step(ctx, {}, 1e-4, 1, step);
    target->values_changed();
  }
  const AllocatorStats stats = ctx.allocator().stats();
  plan.activations = stats.peak_bytes - loaded - plan.parameters;
  plan.total = plan.weights + std::max(beginning, stats.reserved_bytes - loaded);
  return plan;
}

StepChoice choose_step(const models::Checkpoint& checkpoint, PlanRequest request, int64_t free, int64_t group) {
  StepChoice choice;
  const auto fits = [&](int64_t batch_size, int64_t recomputed) {
    request.sequences = choice.batch_size = batch_size;
    request.loss.recompute_group = choice.recompute_group = recomputed;
    choice.plan = plan_training(checkpoint, request);
    return choice.fits = choice.plan.total <= free;
  };
  const int64_t batch = request.sequences;
  for (int64_t n = batch; n >= 1; --n)
    if (batch % n == 0 && fits(n, 0)) return choice;
  fits(1, group);
  return choice;
}

}  // namespace pmetal::train
