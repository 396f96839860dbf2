// The eight tile registers of AMX. The instructions are written as assembly: GCC 12's intrinsics neither declare what a
// tile load reads nor all 64 bytes of the configuration.
#pragma once

#include <cstdint>

namespace pmetal::cpu {

struct HardwareTiles {
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_per_row[16] = {};
    uint8_t rows[16] = {};
  };
  static_assert(sizeof(Config) == 64);

  // rows of the upper and the lower A tile; 0: the lower one is not used
  void configure(int upper, int lower) {
    Config config;
    for (int t = 0; t < 8; ++t) config.bytes_per_row[t] = 64;
    const auto u = static_cast<uint8_t>(upper), l = static_cast<uint8_t>(lower > 0 ? lower : 1);
    const uint8_t rows[8] = {u, u, l, l, u, l, 16, 16};
    for (int t = 0; t < 8; ++t) config.rows[t] = rows[t];
    asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
  }
  void release() { asm volatile("tilerelease" : : : "memory"); }
  template <int T>
  void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(T));
  }
  template <int T>
  void load(const char* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  void stream_load(const char* from, int64_t stride) {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  void store(char* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(T) : "memory");
  }
  template <int C, int A, int B>
  void dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
};

}  // namespace pmetal::cpu
