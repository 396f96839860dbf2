#include "infer/generate.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "infer/kv.h"
#include "infer/step_runner.h"

namespace pmetal::infer {

nn::KvStore make_kv_store(Context& ctx, const models::Model& model, int64_t max_pages) {
  std::vector<nn::KvLayer> layers;
  for (const models::LayerMemory& m : model.info().memory) layers.push_back({m.kv_heads, m.d_k, m.d_v});
  return nn::KvStore(ctx, std::move(layers), max_pages, model.dtype);
}

namespace {

int32_t arg_max(const float* row, int64_t n) {
  const float* nan = std::find_if(row, row + n, [](float z) { return std::isnan(z); });
  if (nan != row + n)
    fail(ErrorCode::kNumerical, "the logit of token {} is nan; there is no likeliest token. The weights are broken",
         nan - row);
  return static_cast<int32_t>(std::max_element(row, row + n) - row);
}

}  // namespace

std::vector<int32_t> generate_greedy(Context& ctx, models::Model& model, std::span<const int32_t> prompt, int64_t n) {
  nn::KvStore store = make_kv_store(ctx, model, nn::KvStore::pages_for(static_cast<int64_t>(prompt.size()) + n));
  StepRunner runner(ctx, model, store);
  nn::SequenceState state(store);
  std::vector<int32_t> generated, next(prompt.begin(), prompt.end());
  while (static_cast<int64_t>(generated.size()) < n) {
    const nn::StepSequence sequence[] = {{.state = &state, .tokens = next}};
    const Tensor z = ops::to_host(ctx, runner.run(sequence).logits);
    const int32_t best = arg_max(z.data<float>(), z.dim(1));
    generated.push_back(best);
    next = {best};
  }
  return generated;
}

std::vector<std::vector<int32_t>> generate_greedy(Context& ctx, models::Model& model,
                                                  std::span<const std::vector<int32_t>> prompts, int64_t max_tokens,
                                                  int32_t stop, int64_t group) {
  std::vector<std::vector<int32_t>> all(prompts.size());
  for (size_t first = 0; first < prompts.size(); first += static_cast<size_t>(group)) {
    const size_t n = std::min(prompts.size() - first, static_cast<size_t>(group));
    int64_t pages = 0;
    for (size_t i = 0; i < n; ++i)
      pages += nn::KvStore::pages_for(static_cast<int64_t>(prompts[first + i].size()) + max_tokens);
    nn::KvStore store = make_kv_store(ctx, model, pages);
    StepRunner runner(ctx, model, store);
    std::vector<nn::SequenceState> states;
    for (size_t i = 0; i < n; ++i) states.emplace_back(store);
    std::vector<std::vector<int32_t>> next(prompts.begin() + static_cast<int64_t>(first),
                                           prompts.begin() + static_cast<int64_t>(first + n));
    std::vector<size_t> active(n);
    for (size_t i = 0; i < n; ++i) active[i] = i;
    for (int64_t t = 0; t < max_tokens && !active.empty(); ++t) {
      std::vector<nn::StepSequence> sequences;
      for (size_t i : active) sequences.push_back({.state = &states[i], .tokens = next[i]});
      const Tensor z = ops::to_host(ctx, runner.run(sequences).logits);
      std::vector<size_t> going;
      for (size_t r = 0; r < active.size(); ++r) {
        const int32_t token = arg_max(z.data<float>() + static_cast<int64_t>(r) * z.dim(1), z.dim(1));
        if (token == stop) continue;
        all[first + active[r]].push_back(token);
        next[active[r]] = {token};
        going.push_back(active[r]);
      }
      active = std::move(going);
    }
  }
  return all;
}

}  // namespace pmetal::infer
