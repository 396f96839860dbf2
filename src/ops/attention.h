// Attention over a ragged step, flash style (Dao et al. 2022): no [T, T] matrix, forward or backward. Queries and keys
// are separate row sets; what may be seen is a specification evaluated from positions, never a dense mask. Keys are
// visited in blocks that start at absolute multiples of kAttentionBlock of the key index, so the bits of a row do not
// depend on how the queries are cut or on batch mates.
#pragma once

#include "tensor/kernel.h"

namespace pmetal::ops {

inline constexpr int64_t kAttentionBlock = 64;  // keys; equal to the page of the KV store

enum class MaskKind : uint8_t { kCausal, kBidirectional };

struct AttentionMask {
  MaskKind kind = MaskKind::kCausal;
  int64_t window =
      0;  // > 0: a query at position p sees positions p - window + 1 .. p (and the mirror, if bidirectional)
  int64_t chunk = 0;  // > 0: only keys with position / chunk equal to the query's
};

// Which rows belong together. Device tensors, lengths known to the host only as bounds.
struct AttentionRows {
  Tensor cu_q;    // [sequences + 1] i32: query rows of sequence s are [cu_q[s], cu_q[s + 1])
  Tensor kv_len;  // [sequences] i32: keys of sequence s, including those of this step's rows (the last ones)
  // contiguous keys: rows [cu_k[s], cu_k[s] + kv_len[s]) of k and v
  Tensor cu_k;  // [sequences + 1] i32, or undefined when paged
  // paged keys: token j of sequence s is at page page_table[s, j / 64], slot j % 64
  Tensor page_table;              // [sequences, max_pages] i32, or undefined
  int64_t max_q = 0, max_kv = 0;  // host bounds
  int64_t sequences() const { return kv_len.dim(0); }
};

// The key index j of a sequence is its order, 0 .. kv_len - 1; query row i of the step's n rows of a sequence has index
// kv_len - n + i. Masks compare these indices (positions only feed rope).
struct AttentionArgs {
  View q;     // [q_rows, q_heads, d_k]
  View k, v;  // contiguous [kv_rows, kv_heads, d], or pages [pages, kv_heads, 64, d]
  View out;   // [q_rows, q_heads, d_v]
  View lse;   // [q_rows, q_heads] f32 or none: log-sum-exp of the scaled scores, for backward and for merging partials
  View cu_q, kv_len, cu_k, page_table;
  View sinks;  // [q_heads] or none: an extra logit per head that takes weight and gives nothing
  AttentionMask mask;
  float scale = 1;
  float softcap = 0;  // > 0: scores become softcap · tanh(score / softcap)
  int64_t max_q = 0, max_kv = 0;
};
PMETAL_DECLARE_KERNELS(attention, AttentionArgs)

struct AttentionBackwardArgs {
  AttentionArgs forward;  // with out and lse filled; keys contiguous
  View dout;              // [q_rows, q_heads, d_v]
  View dq, dk, dv;        // shapes of q, k, v; written, not added to
  View dsinks;            // [q_heads] f32 or none; added to
};
PMETAL_DECLARE_KERNELS(attention_backward, AttentionBackwardArgs)

struct AttentionOptions {
  AttentionMask mask;
  float scale = 1;
  float softcap = 0;
  Tensor sinks;
  int64_t room = 0;  // of the output's rows; see Tensor::room()
};
// Differentiable when keys are contiguous (training: an empty memory).
Tensor attention(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v, const AttentionRows& rows,
                 const AttentionOptions& options);

}  // namespace pmetal::ops
