#include "infer/generate.h"

#include "infer/kv.h"

namespace pmetal::infer {

nn::KvStore make_kv_store(Context& ctx, const models::Model& model, int64_t max_pages) {
  std::vector<nn::KvLayer> layers;
  for (const models::LayerMemory& m : model.info().memory) layers.push_back({m.kv_heads, m.d_k, m.d_v});
  return nn::KvStore(ctx, std::move(layers), max_pages, model.dtype);
}

std::vector<int32_t> generate_greedy(Context& ctx, models::Model& model, std::span<const int32_t> prompt, int64_t n) {
  nn::KvStore store = make_kv_store(ctx, model, nn::KvStore::pages_for(static_cast<int64_t>(prompt.size()) + n));
  nn::SequenceState state(store);
  std::vector<int32_t> generated, next(prompt.begin(), prompt.end());
  while (static_cast<int64_t>(generated.size()) < n) {
    const nn::StepSequence sequence[] = {{.state = &state, .tokens = next}};
    const nn::KvStore::Step step = store.begin_step(ctx, sequence);
    const Tensor z = ops::to_host(ctx, models::logits(ctx, model, models::forward(ctx, model, step.batch)));
    const float* row = z.data<float>();
    int32_t best = 0;
    for (int64_t v = 1; v < z.dim(1); ++v)
      if (row[v] > row[best]) best = static_cast<int32_t>(v);
    generated.push_back(best);
    next = {best};
  }
  return generated;
}

}  // namespace pmetal::infer
