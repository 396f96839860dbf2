// Philox4x32-10 (Salmon et al. 2011): random numbers as a pure function of (seed, counters). There is no generator
// state to save: resume, packing, batching and recomputation cannot change a draw.
#pragma once

#include <array>
#include <cstdint>

namespace pmetal {

using PhiloxBlock = std::array<uint32_t, 4>;

inline PhiloxBlock philox4x32(std::array<uint32_t, 2> key, PhiloxBlock counter) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

inline std::array<uint32_t, 2> philox_key(uint64_t seed) {
  return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
}

// uniform in (0, 1): (x + 1/2) * 2^-32 rounded to f32, at most 1 - 2^-24
inline float uniform_open(uint32_t x) {
  const float u = static_cast<float>((static_cast<double>(x) + 0.5) * 0x1p-32);
  return u > 1.f - 0x1p-24f ? 1.f - 0x1p-24f : u;
}

// What a stream of random numbers is for: the third counter word, so that no two uses share numbers.
enum class RngPurpose : uint32_t {
  kTokenDraw = 0,
  kAcceptTest = 1,
  kResidualDraw = 2,
  kXtcCoin = 3,  // sampling.md, section 6
  kInit = 16,
  kDropout = 17,
  kShuffle = 18,
  kNeftune = 19,
  kStochasticRounding = 20,
  kSynthetic = 21,
};

// Sequential convenience over one stream (shuffles, generators of synthetic data). Copyable; position is explicit.
class PhiloxStream {
 public:
  PhiloxStream(uint64_t seed, RngPurpose purpose, uint64_t stream = 0)
      : key_(philox_key(seed)), purpose_(static_cast<uint32_t>(purpose)), stream_(stream) {}
  uint32_t next_u32() {
    if ((position_ & 3) == 0)
      block_ = philox4x32(key_, {static_cast<uint32_t>(position_ >> 2), static_cast<uint32_t>(position_ >> 34),
                                 purpose_ << 8 | static_cast<uint32_t>(stream_ >> 32), static_cast<uint32_t>(stream_)});
    return block_[position_++ & 3];
  }
  // uniform in [0, n), n >= 1, without modulo bias (Lemire's multiply and reject)
  uint64_t below(uint64_t n);
  double uniform() { return (static_cast<double>(next_u32()) + 0.5) * 0x1p-32; }
  double normal();  // N(0, 1), Box-Muller, one value per two draws
  uint64_t position() const { return position_; }

 private:
  std::array<uint32_t, 2> key_;
  uint32_t purpose_;
  uint64_t stream_, position_ = 0;
  PhiloxBlock block_{};
};

}  // namespace pmetal
