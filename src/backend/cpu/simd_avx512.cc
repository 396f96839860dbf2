// The row kernels of simd_rows.h and simd_elementwise.h, and what attention and head_loss do with rows, on AVX-512.
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "backend/cpu/plain.h"
#include "backend/cpu/score_rows.h"
#include "backend/cpu/simd.h"
#include "backend/cpu/simd_level.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,avx2,f16c")

#include "backend/cpu/simd_pairs.h"
//
#include "backend/cpu/simd_rows.h"
//
#include "backend/cpu/simd_elementwise.h"
#include "backend/cpu/simd_norm_rope.h"
#include "backend/cpu/simd_scores.h"

namespace pmetal::cpu {
template struct SimdLevel<Avx512>;
const ScoreRows& score_rows_avx512() {
  static constexpr ScoreRows table = score_table<Avx512>();
  return table;
}
}  // namespace pmetal::cpu

#pragma GCC pop_options
