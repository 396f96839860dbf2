#include "infer/layer_profile.h"

#include <chrono>

#include "infer/kv.h"

namespace pmetal::infer {
namespace {

constexpr int kDecodeSteps = 8;

class Stopwatch {
 public:
  double lap_ms() {
    const auto now = std::chrono::steady_clock::now();
    const double ms = std::chrono::duration<double, std::milli>(now - last_).count();
    last_ = now;
    return ms;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// adds the time of each part to `to`
void timed_forward(Context& ctx, models::Model& model, const nn::Batch& batch, std::span<double> to) {
  Stopwatch watch;
  size_t part = 0;
  const auto step = model.begin(ctx, batch);
  models::Hidden x = model.embed(ctx, batch);
  to[part++] += watch.lap_ms();
  for (int64_t i = 0; i < model.info().layers; ++i) {
    x = model.block(ctx, i, x, batch, *step);
    to[part++] += watch.lap_ms();
  }
  const Tensor hidden = model.final(ctx, x, batch);
  to[part++] += watch.lap_ms();
  ops::to_host(ctx, models::logits(ctx, model, hidden, &batch));
  to[part++] += watch.lap_ms();
}

}  // namespace

std::vector<LayerTime> profile_layers(Context& ctx, models::Model& model, std::span<const int32_t> prompt) {
  const auto n = static_cast<int64_t>(prompt.size());
  const size_t parts = static_cast<size_t>(model.info().layers) + 3;
  nn::KvStore store = make_kv_store(ctx, model, nn::KvStore::pages_for(n + kDecodeSteps));
  nn::SequenceState state(store);
  std::vector<double> prefill(parts), decode(parts);
  for (const bool is_warm_up : {true, false}) {
    state.truncate(0);
    std::fill(prefill.begin(), prefill.end(), 0);
    std::fill(decode.begin(), decode.end(), 0);
    const auto run = [&](std::span<const int32_t> tokens, std::span<double> to) {
      const nn::StepSequence s[] = {{.state = &state, .tokens = tokens}};
      const nn::KvStore::Step step = store.begin_step(ctx, s);
      timed_forward(ctx, model, step.batch, to);
    };
    run(prompt, prefill);
    for (int i = 0; i < (is_warm_up ? 1 : kDecodeSteps); ++i) run(prompt.last(1), decode);
  }
  std::vector<LayerTime> out(parts);
  for (size_t i = 0; i < parts; ++i)
    out[i] = {i == 0           ? "embed"
              : i == parts - 2 ? "final"
              : i == parts - 1 ? "head"
                               : fmt::format("layer {}", i - 1),
              prefill[i], decode[i] / kDecodeSteps};
  return out;
}

}  // namespace pmetal::infer
