// rope_append on vectors (simd_norm_rope.h): each head of a step is read once and written once, to where attention
// reads it.
#include "backend/cpu/simd_level.h"
#include "ops/fused_cpu.h"

namespace pmetal::ops {
namespace {
using cpu::simd_candidate;
const Candidate<RopeAppendArgs> kCandidates[] = {simd_candidate<cpu::Avx512Bf16, RopeAppendArgs>("avx512_bf16"),
                                                 simd_candidate<cpu::Avx512, RopeAppendArgs>("avx512"),
                                                 simd_candidate<cpu::Avx2, RopeAppendArgs>("avx2")};
}  // namespace
const KernelList<RopeAppendArgs> rope_append_cpu = {"rope_append", kCandidates};
}  // namespace pmetal::ops
