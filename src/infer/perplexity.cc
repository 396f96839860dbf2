#include "infer/perplexity.h"

#include <algorithm>
#include <cmath>

namespace pmetal::infer {

double Likelihood::perplexity() const { return std::exp(mean()); }

void Likelihood::add(const Likelihood& other) {
  nll += other.nll;
  tokens += other.tokens;
  correct += other.correct;
}

Likelihood score(Context& ctx, models::Model& model, std::span<const ScoredSequence> sequences) {
  std::vector<nn::SequenceInput> inputs;
  std::vector<int32_t> rows, labels;
  int32_t first = 0;
  for (const ScoredSequence& s : sequences) {
    PMETAL_ASSERT(s.tokens.size() == s.labels.size() && !s.tokens.empty());
    inputs.push_back({.tokens = s.tokens, .positions = {}});
    for (size_t t = 1; t < s.tokens.size(); ++t)
      if (s.labels[t] >= 0) {
        rows.push_back(first + static_cast<int32_t>(t) - 1);
        labels.push_back(s.labels[t]);
      }
    first += static_cast<int32_t>(s.tokens.size());
  }
  Likelihood out;
  if (rows.empty()) return out;
  const Shape n{static_cast<int64_t>(rows.size())};
  nn::Batch batch = nn::make_batch(ctx, inputs);
  batch.output_rows = ops::to_device(ctx, host_tensor<int32_t>(rows, n, DType::kI32));
  const Tensor hidden = models::forward(ctx, model, batch);
  const std::vector<float> weight(rows.size(), 1.f);
  const ops::HeadLoss loss =
      models::loss(ctx, model, hidden, ops::to_device(ctx, host_tensor<int32_t>(labels, n, DType::kI32)),
                   ops::to_device(ctx, host_tensor<float>(weight, n, DType::kF32)), {.want_entropy = false});
  const Tensor nll = ops::to_host(ctx, loss.nll), correct = ops::to_host(ctx, loss.correct);
  out.tokens = n.numel();
  for (int64_t i = 0; i < out.tokens; ++i) {
    out.nll += static_cast<double>(nll.data<float>()[i]);
    out.correct += correct.data<uint8_t>()[i];
  }
  if (!std::isfinite(out.nll))
    fail(ErrorCode::kNumerical, "the negative log-likelihood is {}; the weights are broken", out.nll);
  return out;
}

std::vector<TextWindow> text_windows(int64_t n, int64_t length, int64_t stride) {
  PMETAL_ASSERT(length >= 2 && stride >= 0 && stride <= length, "windows of {} every {}", length, stride);
  std::vector<TextWindow> windows;
  if (stride == 0) {
    for (int64_t b = 0; b + length <= n; b += length) windows.push_back({b, length, 1});
    return windows;
  }
  int64_t scored = 1;  // tokens before this one are done; the first has nothing before it
  for (int64_t b = 0; scored < n; b += stride) {
    const int64_t end = std::min(n, b + length);
    // a window can only score what has a token before it in the window
    if (std::max(scored, b + 1) < end) windows.push_back({b, end - b, std::max(scored, b + 1) - b});
    scored = std::max(scored, end);
  }
  return windows;
}

}  // namespace pmetal::infer
