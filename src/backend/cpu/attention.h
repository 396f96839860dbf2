// Candidates of `attention` and `attention_backward` on the CPU, and what they share: which keys a query sees and
// where they lie.
#pragma once

#include <algorithm>

#include "ops/attention.h"

namespace pmetal::cpu {

void attention_plain(const ops::AttentionArgs& args, const KernelContext& kernel);
int64_t attention_plain_workspace(const ops::AttentionArgs& args, const KernelContext& kernel);
void attention_backward_plain(const ops::AttentionBackwardArgs& args, const KernelContext& kernel);
int64_t attention_backward_plain_workspace(const ops::AttentionBackwardArgs& args, const KernelContext& kernel);

// Every mask leaves a query one interval of key indices.
struct KeyRange {
  int64_t begin, end;
};
inline KeyRange visible(const ops::AttentionMask& mask, int64_t query, int64_t n_keys) {
  const bool causal = mask.kind == ops::MaskKind::kCausal;
  KeyRange range{0, causal ? std::min(n_keys, query + 1) : n_keys};
  if (mask.window > 0) {
    range.begin = std::max(range.begin, query - mask.window + 1);
    if (!causal) range.end = std::min(range.end, query + mask.window);
  }
  if (mask.chunk > 0) {
    range.begin = std::max(range.begin, query / mask.chunk * mask.chunk);
    range.end = std::min(range.end, (query / mask.chunk + 1) * mask.chunk);
  }
  return range;
}

// One sequence of a ragged step.
struct AttentionSequence {
  int64_t index;            // s
  int64_t first_row, rows;  // query rows
  int64_t keys;             // kv_len
  int64_t query_of(int64_t row) const { return keys - rows + (row - first_row); }
};
inline AttentionSequence sequence_at(const ops::AttentionArgs& args, int64_t s) {
  const int32_t* cu = args.cu_q.as<int32_t>();
  return {s, cu[s], cu[s + 1] - cu[s], args.kv_len.as<int32_t>()[s]};
}
// the sequence that owns a query row
inline AttentionSequence sequence_of_row(const ops::AttentionArgs& args, int64_t row) {
  const int32_t* cu = args.cu_q.as<int32_t>();
  const int64_t n = args.kv_len.dim(0);
  return sequence_at(args, std::upper_bound(cu, cu + n + 1, static_cast<int32_t>(row)) - cu - 1);
}

// the most query rows of one sequence
inline int64_t most_query_rows(const ops::AttentionArgs& args) {
  const int32_t* cu = args.cu_q.as<int32_t>();
  int32_t most = 1;
  for (int64_t s = 0; s < args.kv_len.dim(0); ++s) most = std::max(most, cu[s + 1] - cu[s]);
  return most;
}

// element offset and stride between keys of key block `block` (64 keys) of a sequence, for kv head h
struct KeyBlock {
  int64_t offset, stride;
};
inline KeyBlock key_block(const ops::AttentionArgs& args, const View& rows, int64_t s, int64_t head, int64_t block) {
  if (args.page_table) {
    const int64_t page = args.page_table.as<int32_t>()[s * args.page_table.stride(0) + block];
    return {page * rows.stride(0) + head * rows.stride(1), rows.stride(2)};
  }
  const int64_t first = args.cu_k.as<int32_t>()[s] + block * ops::kAttentionBlock;
  return {first * rows.stride(0) + head * rows.stride(1), rows.stride(0)};
}

}  // namespace pmetal::cpu
