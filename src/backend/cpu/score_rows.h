// What attention and head_loss do with rows of scores between their matrix products: one table per vector level.
#pragma once

#include <cstdint>

#include "backend/cpu/isa.h"
#include "base/dtype.h"

namespace pmetal::cpu {

inline constexpr int64_t kScoreColumns = 64;  // keys of a block

// One row of a block of 64 scores; columns outside [begin, end) are not seen.
struct SoftmaxRow {
  const float* scores;  // [64] raw dot products
  int64_t begin, end;
  float scale, cap;  // s = scale · dot, then cap · tanh(s / cap) where cap > 0
  float* max;        // running, -inf at first
  float* sum;        // running Σ e^(s − max)
  void* p;           // [64] out: e^(s − max), 0 where not seen; bf16 or f32
  void* p_rest;      // [64] out, with bf16 alone: what rounding took from p, in bf16
  float* out;        // [n] running Σ p · v, rescaled when the maximum moves
  int64_t n;         // a multiple of 16
};
struct ScoreGradRow {
  const float *scores, *dp;  // [64] raw dot products of q · k and of dout · v
  int64_t begin, end;
  float scale, cap, lse, delta;
  void *p, *ds;  // [64] out: e^(s − lse) and scale · p · (dp − delta) · slope
};
// One row of a chunk of logits of the head loss
struct LogitRow {
  float* z;  // [n] raw logits; out: e^(z − max) · slope, as bf16 in the row's own place when `narrow`
  int64_t n;
  float scale, cap;
  bool narrow, want_p;
  float* max;
  float* sum;       // Σ e
  float* weighted;  // Σ e · (z − max)
  int64_t* best;    // first index of the maximum
  int64_t first;    // index of z[0]
  float* factor;    // out: what earlier sums were multiplied with
};

struct ScoreRows {
  void (*softmax)(const SoftmaxRow&, bool p_is_bf16);
  void (*gradient)(const ScoreGradRow&, bool is_bf16);
  void (*logits)(const LogitRow&);
  float (*dot)(const void* a, const void* b, int64_t n, DType dtype);
  // y = a · x, or y += a · x
  void (*scale_to)(const float* x, float a, void* y, DType y_dtype, int64_t n);
  void (*add_scaled)(const float* x, float a, float* y, int64_t n);
};
const ScoreRows& score_rows_avx512_bf16();
const ScoreRows& score_rows_avx512();
const ScoreRows& score_rows_avx2();

inline const ScoreRows& score_rows_for(Isa isa) {
  if (isa >= Isa::kAvx512Bf16) return score_rows_avx512_bf16();
  return isa >= Isa::kAvx512 ? score_rows_avx512() : score_rows_avx2();
}

}  // namespace pmetal::cpu
