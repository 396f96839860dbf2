// matmul, plain: any strides and dtypes, tiles of 32 x 32 through shared memory, one f32 sum per output in order of k.
// The reference of the library's products, and the fallback for mixed dtypes.
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kTile = 32, kRowsOfThreads = 8;

__global__ void matmul_kernel(MatmulLaunch args) {
  __shared__ float a[kTile][kTile + 1], b[kTile][kTile + 1];
  const View &va = args.a, &vb = args.b, &vc = args.c;
  const int64_t m = vc.shape[0], n = vc.shape[1], inner = va.shape[1];
  const int64_t column0 = blockIdx.x * int64_t{kTile};
  const int x = threadIdx.x, y = threadIdx.y;
  for (int64_t row0 = blockIdx.y * int64_t{kTile}; row0 < m; row0 += gridDim.y * int64_t{kTile}) {
    float sums[kTile / kRowsOfThreads] = {};
    for (int64_t k0 = 0; k0 < inner; k0 += kTile) {
      for (int i = y; i < kTile; i += kRowsOfThreads) {
        a[i][x] = row0 + i < m && k0 + x < inner
                      ? load_one<float>(va.data, va.dtype, (row0 + i) * va.strides[0] + (k0 + x) * va.strides[1])
                      : 0.f;
        b[i][x] = k0 + i < inner && column0 + x < n
                      ? load_one<float>(vb.data, vb.dtype, (k0 + i) * vb.strides[0] + (column0 + x) * vb.strides[1])
                      : 0.f;
      }
      __syncthreads();
      for (int k = 0; k < kTile; ++k)
#pragma unroll
        for (int j = 0; j < kTile / kRowsOfThreads; ++j) sums[j] = fmaf(a[y + j * kRowsOfThreads][k], b[k][x], sums[j]);
      __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < kTile / kRowsOfThreads; ++j) {
      const int64_t row = row0 + y + j * kRowsOfThreads, column = column0 + x;
      if (row >= m || column >= n) continue;
      float sum = sums[j] * args.alpha;
      if (args.bias.data) sum += load_one<float>(args.bias.data, args.bias.dtype, column * args.bias.strides[0]);
      const int64_t at = row * vc.strides[0] + column * vc.strides[1];
      if (args.accumulate) sum += load_one<float>(vc.data, vc.dtype, at);
      store_one(vc.data, vc.dtype, at, sum);
    }
  }
}

// A sum that every word's value and place enters, in whatever order blocks come.
__global__ void hash_kernel(const uint8_t* c, int64_t rows, int64_t words, int64_t step, unsigned long long* out) {
  unsigned long long sum = 0;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < rows * words;
       i += gridDim.x * int64_t{blockDim.x}) {
    const int64_t row = i / words, word = i - row * words;
    const uint16_t value = *reinterpret_cast<const uint16_t*>(c + row * step + word * 2);
    unsigned long long h =
        (value + 1ull) * 0x9E3779B97F4A7C15ull + static_cast<unsigned long long>(i) * 0xD1B54A32D192ED03ull;
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93ull;
    sum += h ^ h >> 29;
  }
  for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_down_sync(0xffffffffu, sum, lane);
  if (threadIdx.x % 32 == 0) atomicAdd(out, sum);
}

}  // namespace

void launch_hash_rows(StreamHandle stream, const void* c, int64_t rows, int64_t row_bytes, int64_t step_bytes,
                      unsigned long long* out) {
  cudaMemsetAsync(out, 0, sizeof *out, stream);
  hash_kernel<<<132 * 8, 256, 0, stream>>>(static_cast<const uint8_t*>(c), rows, row_bytes / 2, step_bytes, out);
}

void launch_matmul_plain(StreamHandle stream, const MatmulLaunch& a) {
  const dim3 grid(blocks_for(a.c.shape[1], kTile), blocks_for(a.c.shape[0], kTile, 65535));
  matmul_kernel<<<grid, dim3(kTile, kRowsOfThreads), 0, stream>>>(a);
}

}  // namespace pmetal::cuda
