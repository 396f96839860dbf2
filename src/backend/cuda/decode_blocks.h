// What decode_blocks_sm90.cu offers to its launcher: plain values, light enough for nvcc. All bf16; matrices are [out,
// in] and contiguous. See ops/decode_blocks.h.
#pragma once

#include "backend/cuda/kernels.h"

namespace pmetal::cuda {

struct DecodeBlockLaunch {
  const void *q, *k, *v, *o, *gate, *up, *down;
  const void *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias, *down_bias;  // or null
  const void *input_norm, *post_norm, *q_norm, *k_norm;                             // the last two or null
  void *k_pages, *v_pages;                                                          // [pages, kv_heads, 64, d]
  int window;
};
inline constexpr int kMostDecodeBlocks = 128, kMostDecodeSplits = 32;
struct DecodeBlocksLaunch {
  DecodeBlockLaunch block[kMostDecodeBlocks];
  const void* x;
  void* y;  // [hidden]
  // words that blocks exchange, each with the number of the layer; see the kernel
  void *qkv, *after_attention, *inner, *after_down, *merged, *partial, *partial_sums;
  const float *cos, *sin;
  const int64_t* slot;
  const int32_t *kv_len, *pages;
  int n, hidden, n_inner, heads, kv_heads, d, activation, stages;
  float eps, scale;
};
struct DecodeBlocksShape {
  int hidden, inner, heads, kv_heads, d;
};
// 0: the shape is not this kernel's; else the stages of its ring of shared memory
int decode_blocks_stages(const DecodeBlocksShape& shape, int multiprocessors);
int64_t decode_blocks_workspace(const DecodeBlocksShape& shape);
// `a` but for what blocks exchange, which lies in the workspace, and the stages
void launch_decode_blocks(StreamHandle stream, DecodeBlocksLaunch& a, void* workspace, int multiprocessors);

}  // namespace pmetal::cuda
