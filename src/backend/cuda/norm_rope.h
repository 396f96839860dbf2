// Launchers of norm_rope; see norm_rope.cu.
#pragma once

#include "backend/cuda/kernels.h"

namespace pmetal::cuda {

struct NormRopeLaunch {
  const void *x, *dy, *weight;
  void *y, *dx;
  const float *cos, *sin;
  int64_t tokens, heads, d;
  int64_t x_stride, x_head_stride, y_stride, y_head_stride;  // y: of y or dx
  int64_t dy_stride, dy_head_stride, table_stride;
  DType weight_dtype;
  float eps;
  float *partial, *dweight;  // [norm_rope_blocks(), d] and [d], or null
};
int64_t norm_rope_blocks(int64_t tokens, int64_t heads, int64_t d);  // of the backward pass
void launch_norm_rope(StreamHandle stream, const NormRopeLaunch& a);
void launch_norm_rope_backward(StreamHandle stream, const NormRopeLaunch& a);

}  // namespace pmetal::cuda
