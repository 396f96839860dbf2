// dropout: the bits of the CPU kernel. Element e of the row with identity `token` is kept when word e % 4 of
// Philox4x32-10(key; e / 4, token) is at least p; the key is drawn from (seed; module, step, purpose).
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

__device__ uint4 philox(uint32_t k0, uint32_t k1, uint4 c) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c.x, p1 = uint64_t{0xCD9E8D57u} * c.z;
    c = make_uint4(static_cast<uint32_t>(p1 >> 32) ^ c.y ^ k0, static_cast<uint32_t>(p1),
                   static_cast<uint32_t>(p0 >> 32) ^ c.w ^ k1, static_cast<uint32_t>(p0));
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

__device__ float uniform_open(uint32_t x) {
  const float u = static_cast<float>((static_cast<double>(x) + 0.5) * 0x1p-32);
  return u > 1.f - 0x1p-24f ? 1.f - 0x1p-24f : u;
}

__global__ void dropout_kernel(DropoutLaunch a, int64_t groups, int64_t items) {
  const View &x = a.x, &y = a.y, &row_ids = a.row_ids;
  const float p = a.p, scale = 1.f / (1.f - p);
  const uint32_t step = a.step_at ? static_cast<uint32_t>(*a.step_at) : a.step;
  const uint4 key = philox(a.seed0, a.seed1, make_uint4(a.module, step, a.purpose, 0));
  const uint32_t k0 = key.x, k1 = key.y;
  const int64_t n = x.shape[1];
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < items; i += gridDim.x * int64_t{kThreads}) {
    const int64_t r = i / groups, group = i % groups;
    const uint64_t token = static_cast<uint64_t>(row_ids.as<int64_t>()[r * row_ids.strides[0]]);
    const uint4 w = philox(
        k0, k1,
        make_uint4(static_cast<uint32_t>(group), static_cast<uint32_t>(token), static_cast<uint32_t>(token >> 32), 0));
    const uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t c = group * 4 + j;
      if (c >= n) break;
      const float v = load_one<float>(x.data, x.dtype, r * x.strides[0] + c * x.strides[1]);
      store_one(y.data, y.dtype, r * y.strides[0] + c * y.strides[1], uniform_open(words[j]) < p ? 0.f : v * scale);
    }
  }
}

}  // namespace

void launch_dropout(StreamHandle stream, const DropoutLaunch& a) {
  const int64_t groups = (a.x.shape[1] + 3) / 4, items = groups * a.x.shape[0];
  dropout_kernel<<<blocks_for(items, kThreads, 132 * 64), kThreads, 0, stream>>>(a, groups, items);
}

}  // namespace pmetal::cuda
