// The race of algorithms for one product. Which one wins a close race may differ from run to run, so only those may win
// whose result has the bits of the first one's: the winner changes no number.
#pragma once

namespace pmetal::cuda {

// Index of the fastest of `n` candidates among those with the bits of candidate 0. `bits(i)` runs i and gives a check
// sum of its result, `milliseconds(i)` measures it; those of other bits are not measured.
template <class Bits, class Milliseconds>
int fastest_of_equal_bits(int n, const Bits& bits, const Milliseconds& milliseconds) {
  const auto expected = bits(0);
  int fastest = 0;
  if (n < 2) return fastest;
  auto best = milliseconds(0);
  for (int i = 1; i < n; ++i) {
    if (bits(i) != expected) continue;
    const auto time = milliseconds(i);
    if (time < best) best = time, fastest = i;
  }
  return fastest;
}

}  // namespace pmetal::cuda
