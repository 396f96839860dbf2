#include "base/rng.h"

#include <cmath>
#include <numbers>

#include "base/error.h"

namespace pmetal {

__extension__ typedef unsigned __int128 Wide;

uint64_t PhiloxStream::below(uint64_t n) {
  PMETAL_ASSERT(n >= 1);
  for (;;) {
    const uint64_t x = (uint64_t{next_u32()} << 32) | next_u32();
    const Wide product = static_cast<Wide>(x) * n;
    if (static_cast<uint64_t>(product) >= (0 - n) % n) return static_cast<uint64_t>(product >> 64);
  }
}

double PhiloxStream::normal() {
  const double u = uniform(), v = uniform();
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

}  // namespace pmetal
