// Batch: one ragged step. All sequences are laid end to end; activations are [tokens, features]. Packed training, a
// prefill chunk and forty decode streams are the same call. There is no padding.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/attention.h"
#include "ops/decode_blocks.h"
#include "ops/elementwise.h"
#include "ops/rope_append.h"
#include "tensor/tensor.h"

namespace pmetal::nn {

class Memory;

struct Batch {
  Tensor tokens;                 // [T] i32
  Tensor positions;              // [T] i32: what rope turns by
  ops::AttentionRows rows;       // borders of the sequences; contiguous when memory is null, paged otherwise
  std::vector<int32_t> adapter;  // per sequence: index of a resident adapter, or -1 = base weights; empty: all 0 when
                                 // one is resident, else none
  std::vector<int32_t> cu_q;     // host copy of the borders [sequences + 1]
  std::vector<int32_t> rope_length;  // per sequence: largest position so far + 1, for length-dependent rope
  Tensor output_rows;                // [R] i32: the rows that go on to the head, each once; undefined = all
  Tensor row_ids;                    // [T] i64: identity of each row for dropout; undefined when nothing draws
  ops::DropoutKey dropout;           // seed and step; `module` is filled by the module that draws
  Memory* memory = nullptr;          // where keys and values of earlier steps live; null: nothing is remembered
  int64_t n_tokens() const { return tokens.dim(0); }
  int64_t n_sequences() const { return static_cast<int64_t>(cu_q.size()) - 1; }
};

// Host-side description from which a batch without memory is made (training, evaluation, probe).
struct SequenceInput {
  std::span<const int32_t> tokens;
  std::span<const int32_t> positions = {};  // empty: 0, 1, 2 ...
  int32_t rope_length = 0;                  // 0: the largest position + 1
  int32_t adapter = -2;                     // -2: the default
};
Batch make_batch(Context& ctx, std::span<const SequenceInput> sequences);

// What remembers keys, values and recurrent state between steps, for all sequences of the step at once. Implemented by
// the KV store (nn/kv_store.h); training has none.
class Memory {
 public:
  virtual ~Memory() = default;
  // Writes the step's keys and values [tokens, kv_heads, d] of `layer`, then attends to all that its sequences
  // remember.
  virtual Tensor append_and_attend(Context& ctx, int layer, const Tensor& q, const Tensor& k, const Tensor& v,
                                   const Batch& batch, const ops::AttentionOptions& options) = 0;
  // The same from what the projections give, where that is one op (ops/rope_append.h); else nothing has happened and
  // the result is undefined.
  virtual Tensor rotate_append_and_attend(Context&, int /*layer*/, const Tensor& /*q*/, const Tensor& /*k*/,
                                          const Tensor& /*v*/, const ops::HeadNorms&, const ops::RopeTable&,
                                          const Batch&, const ops::AttentionOptions&) {
    return {};
  }
  // All blocks of a step of one token as one op (ops/decode_blocks.h); the pages of `blocks` are filled in here. Else
  // nothing has happened and the result is undefined.
  virtual Tensor run_blocks(Context&, const Tensor& /*x*/, ops::DecodeBlocks& /*blocks*/, const ops::RopeTable&,
                            const Batch&) {
    return {};
  }
};

// One call for both cases.
Tensor attend(Context& ctx, int layer, const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch,
              const ops::AttentionOptions& options);

}  // namespace pmetal::nn
