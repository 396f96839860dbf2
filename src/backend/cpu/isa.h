// Which instruction sets the CPU kernels may use. Detected once from CPUID, the register state the operating system
// saves (XCR0) and, for AMX, the permission the kernel grants a process; never from the model name.
//   PMETAL_MAX_ISA=plain|avx2|avx512|amx lowers the level (avx512 includes its bf16 dot product).
#pragma once

#include <cstdint>
#include <string_view>

namespace pmetal::cpu {

// Each level includes the ones before it.
enum class Isa : uint8_t {
  kPlain,       // baseline x86-64
  kAvx2,        // AVX2, FMA, F16C
  kAvx512,      // AVX-512 F, BW, DQ, VL
  kAvx512Bf16,  // + vdpbf16ps
  kAmx,         // + AMX tiles with bf16 (and int8)
};

std::string_view name_of(Isa isa);  // "plain", "avx2", "avx512", "avx512_bf16", "amx"

// The best level of this machine. Asks the kernel for AMX tile state on the first call.
Isa detect_isa();
// The highest level a value of PMETAL_MAX_ISA allows; empty means no cap. Throws Error(kUsage) on an unknown value.
Isa parse_max_isa(std::string_view value);
// min(detect_isa(), PMETAL_MAX_ISA), computed once. Throws Error(kUnsupported) where the CPU has no AVX2.
Isa isa();

}  // namespace pmetal::cpu
