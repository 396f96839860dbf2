#include "backend/cpu/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/error.h"

namespace pmetal::cpu {
namespace {

struct CpuidRegisters {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

CpuidRegisters cpuid(unsigned leaf, unsigned subleaf) {
  CpuidRegisters r;
  if (!__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d)) return {};
  return r;
}

uint64_t enabled_state() {
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

bool bit(unsigned word, int index) { return (word >> index & 1) != 0; }

bool request_amx_permission() {
  constexpr int kArchReqXcompPerm = 0x1023, kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
}

Isa detect() {
  const CpuidRegisters one = cpuid(1, 0), seven = cpuid(7, 0), seven_one = cpuid(7, 1);
  const bool os_saves = bit(one.c, 27);  // OSXSAVE
  const uint64_t state = os_saves ? enabled_state() : 0;
  const auto saved = [&](uint64_t mask) { return (state & mask) == mask; };
  const bool avx2 = saved(0x6) && bit(one.c, 28) && bit(one.c, 12) && bit(one.c, 29) && bit(seven.b, 5);
  if (!avx2) return Isa::kPlain;
  const bool avx512 = saved(0xe6) && bit(seven.b, 16) && bit(seven.b, 17) && bit(seven.b, 30) && bit(seven.b, 31);
  if (!avx512) return Isa::kAvx2;
  if (!bit(seven_one.a, 5)) return Isa::kAvx512;
  const bool amx = saved(0x600e6) && bit(seven.d, 22) && bit(seven.d, 24) && bit(seven.d, 25);
  return amx && request_amx_permission() ? Isa::kAmx : Isa::kAvx512Bf16;
}

}  // namespace

std::string_view name_of(Isa isa) {
  switch (isa) {
    case Isa::kPlain: return "plain";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx512Bf16: return "avx512_bf16";
    case Isa::kAmx: return "amx";
  }
  return "?";
}

Isa detect_isa() {
  static const Isa detected = detect();
  return detected;
}

Isa parse_max_isa(std::string_view value) {
  if (value.empty() || value == "amx") return Isa::kAmx;
  if (value == "avx512") return Isa::kAvx512Bf16;
  if (value == "avx2") return Isa::kAvx2;
  if (value == "plain") return Isa::kPlain;
  fail(ErrorCode::kUsage, "PMETAL_MAX_ISA={}: not an instruction set; use plain, avx2, avx512 or amx", value);
}

Isa isa() {
  static const Isa chosen = [] {
    if (detect_isa() < Isa::kAvx2)
      fail(ErrorCode::kUnsupported,
           "this CPU has no AVX2 with FMA; pmetal needs an x86-64 processor from Intel Haswell or AMD Zen on");
    const char* cap = std::getenv("PMETAL_MAX_ISA");
    return std::min(detect_isa(), parse_max_isa(cap ? cap : ""));
  }();
  return chosen;
}

}  // namespace pmetal::cpu
