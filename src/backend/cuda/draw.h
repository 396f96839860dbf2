// What draw.cu offers to its launcher.
#pragma once

#include "backend/cuda/kernels.h"

namespace pmetal::cuda {

struct DrawRowLaunch {  // ops::DrawRow
  int32_t row, vocabulary;
  uint32_t key[2], position, stream;
  float temperature;
  int32_t unused;
  double top_p, log_min_p;
};
struct DrawLaunch {
  const float* logits;
  int64_t stride;  // of the logits' rows
  const DrawRowLaunch* rows;
  int32_t* out;
  int64_t draws, n;  // n: columns of the logits
  bool has_top_p;
  void* workspace;
};
int64_t draw_workspace(int64_t draws);
void launch_draw(StreamHandle stream, const DrawLaunch& a);

}  // namespace pmetal::cuda
