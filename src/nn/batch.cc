#include "nn/batch.h"

#include <algorithm>
#include <limits>

namespace pmetal::nn {
namespace {

Tensor on_device(Context& ctx, const std::vector<int32_t>& values) {
  return ops::to_device(ctx, host_tensor<int32_t>(values, {static_cast<int64_t>(values.size())}, DType::kI32));
}

}  // namespace

Batch make_batch(Context& ctx, std::span<const SequenceInput> sequences) {
  std::vector<int32_t> tokens, positions, lengths;
  Batch batch;
  batch.cu_q.push_back(0);
  bool any_adapter = false;
  int64_t total = 0;
  for (const SequenceInput& s : sequences) total += static_cast<int64_t>(s.tokens.size());
  if (total > std::numeric_limits<int32_t>::max())
    fail(ErrorCode::kInvalidInput, "a step of {} tokens: at most {} fit", total, std::numeric_limits<int32_t>::max());
  tokens.reserve(static_cast<size_t>(total));
  positions.reserve(static_cast<size_t>(total));
  for (const SequenceInput& s : sequences) {
    PMETAL_ASSERT(s.positions.empty() || s.positions.size() == s.tokens.size(), "{} tokens with {} positions",
                  s.tokens.size(), s.positions.size());
    tokens.insert(tokens.end(), s.tokens.begin(), s.tokens.end());
    int32_t reach = 0;
    for (size_t i = 0; i < s.tokens.size(); ++i) {
      positions.push_back(s.positions.empty() ? static_cast<int32_t>(i) : s.positions[i]);
      reach = std::max(reach, positions.back() + 1);
    }
    batch.rope_length.push_back(s.rope_length > 0 ? s.rope_length : reach);
    lengths.push_back(static_cast<int32_t>(s.tokens.size()));
    batch.cu_q.push_back(static_cast<int32_t>(tokens.size()));
    batch.rows.max_q = std::max<int64_t>(batch.rows.max_q, lengths.back());
    any_adapter |= s.adapter != -2;
  }
  if (any_adapter)
    for (const SequenceInput& s : sequences) batch.adapter.push_back(s.adapter == -2 ? 0 : s.adapter);
  batch.tokens = on_device(ctx, tokens);
  batch.positions = on_device(ctx, positions);
  batch.rows.cu_q = batch.rows.cu_k = on_device(ctx, batch.cu_q);
  batch.rows.kv_len = on_device(ctx, lengths);
  batch.rows.max_kv = batch.rows.max_q;
  return batch;
}

Tensor attend(Context& ctx, int layer, const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch,
              const ops::AttentionOptions& options) {
  if (batch.memory) return batch.memory->append_and_attend(ctx, layer, q, k, v, batch, options);
  return ops::attention(ctx, q, k, v, batch.rows, options);
}

}  // namespace pmetal::nn
