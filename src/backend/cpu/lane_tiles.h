// What attention on tiles is made of, forward (attention_strips.h) and backward (attention_backward_lanes.h): 2 × 2
// tiles of C, [32, 32] in memory, and arithmetic on sixteen lanes.
#pragma once

#include <cstdint>

#include "backend/cpu/simd.h"

namespace pmetal::cpu {

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,avx2,f16c")

inline constexpr int64_t kLanes = 16, kTileBytes = 1024;

// Over a layer of tile registers (HardwareTiles, EmulatedTiles). C lies in tiles 0 to 3, A in 4 and 5, B in 6 and 7.
template <class Tiles>
struct LaneTiles {
  Tiles& tiles;

  void zero() {
    tiles.template zero<0>();
    tiles.template zero<1>();
    tiles.template zero<2>();
    tiles.template zero<3>();
  }
  // C as 32 rows of 32, `row` floats apart
  void store(float* to, int64_t row = 32) {
    char* c = reinterpret_cast<char*>(to);
    tiles.template store<0>(c, row * 4);
    tiles.template store<1>(c + 64, row * 4);
    tiles.template store<2>(c + row * 64, row * 4);
    tiles.template store<3>(c + row * 64 + 64, row * 4);
  }
  void load(const float* from, int64_t row = 32) {
    const char* c = reinterpret_cast<const char*>(from);
    tiles.template load<0>(c, row * 4);
    tiles.template load<1>(c + 64, row * 4);
    tiles.template load<2>(c + row * 64, row * 4);
    tiles.template load<3>(c + row * 64 + 64, row * 4);
  }
  // C += A B, one step of depth 32: A's second tile a1 - a0 bytes further, B's second b1 - b0; kStreams: A is
  // not to push what is needed more often out of L1
  template <bool kStreams = false>
  void multiply(const char* a0, const char* a1, int64_t a_stride, const char* b0, const char* b1) {
    tiles.template load<6>(b0, 64);
    load_a<kStreams, 4>(a0, a_stride);
    tiles.template dot<0, 4, 6>();
    tiles.template load<7>(b1, 64);
    tiles.template dot<1, 4, 7>();
    load_a<kStreams, 5>(a1, a_stride);
    tiles.template dot<2, 5, 6>();
    tiles.template dot<3, 5, 7>();
  }
  // C += A B, one step of depth 32: A's second tile 16 rows further; B, its tiles one after the other, is not wanted
  // again soon
  void multiply_once(const char* a, int64_t a_stride, const char* b) {
    tiles.template stream_load<6>(b, 64);
    tiles.template load<4>(a, a_stride);
    tiles.template dot<0, 4, 6>();
    tiles.template stream_load<7>(b + kTileBytes, 64);
    tiles.template dot<1, 4, 7>();
    tiles.template load<5>(a + 16 * a_stride, a_stride);
    tiles.template dot<2, 5, 6>();
    tiles.template dot<3, 5, 7>();
  }

 private:
  template <bool kStreams, int kTile>
  void load_a(const char* from, int64_t stride) {
    if constexpr (kStreams)
      tiles.template stream_load<kTile>(from, stride);
    else
      tiles.template load<kTile>(from, stride);
  }
};

#pragma GCC pop_options

}  // namespace pmetal::cpu
