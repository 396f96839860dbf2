// norm_rope and its derivative on vectors (simd_norm_rope.h).
#include "ops/norm_rope.h"

#include "backend/cpu/simd_level.h"
#include "ops/fused_cpu.h"

namespace pmetal::ops {
namespace {
using cpu::simd_candidate;
const Candidate<NormRopeArgs> kForward[] = {simd_candidate<cpu::Avx512Bf16, NormRopeArgs>("avx512_bf16"),
                                            simd_candidate<cpu::Avx512, NormRopeArgs>("avx512"),
                                            simd_candidate<cpu::Avx2, NormRopeArgs>("avx2")};
const Candidate<NormRopeBackwardArgs> kBackward[] = {
    simd_candidate<cpu::Avx512Bf16, NormRopeBackwardArgs>("avx512_bf16"),
    simd_candidate<cpu::Avx512, NormRopeBackwardArgs>("avx512"),
    simd_candidate<cpu::Avx2, NormRopeBackwardArgs>("avx2")};
}  // namespace
const KernelList<NormRopeArgs> norm_rope_cpu = {"norm_rope", kForward};
const KernelList<NormRopeBackwardArgs> norm_rope_backward_cpu = {"norm_rope_backward", kBackward};
}  // namespace pmetal::ops
