// AMX: bf16 products on tiles (amx_block.h); f32 and packing from AVX-512.
#include "backend/cpu/gemm/amx_block.h"
#include "backend/cpu/gemm/amx_tiles.h"
#include "backend/cpu/gemm/kernels.h"

namespace pmetal::cpu {
namespace {

template <AmxTuning kTuning>
GemmKernels amx_with(const char* name) {
  GemmKernels kernels = with_amx_block(avx512_kernels(), name, AmxBlock<HardwareTiles, kTuning>::run);
  kernels.finish = avx512_finish_tiles();
  return kernels;
}

}  // namespace

const GemmKernels& amx_kernels() {
  static const GemmKernels kernels = amx_with<AmxTuning{}>("amx");
  return kernels;
}

std::span<const GemmKernels> amx_variants() {
  static const GemmKernels kernels[] = {
      amx_with<AmxTuning{.stream_a = true, .prefetch_a = 0}>("A streamed"),
      amx_with<AmxTuning{.stream_a = false, .prefetch_a = 0}>("A kept"),
      amx_with<AmxTuning{.stream_a = false, .prefetch_a = 4096}>("A prefetched"),
      amx_with<AmxTuning{.stream_a = true, .prefetch_a = 2048}>("A streamed, prefetched"),
  };
  return kernels;
}

const GemmKernels& kernels_for(Isa isa) {
  switch (isa) {
    case Isa::kPlain: return plain_kernels();
    case Isa::kAvx2: return avx2_kernels();
    case Isa::kAvx512: return avx512_kernels();
    case Isa::kAvx512Bf16: return avx512_bf16_kernels();
    case Isa::kAmx: return amx_kernels();
  }
  return plain_kernels();
}

}  // namespace pmetal::cpu
