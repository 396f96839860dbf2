// embedding: rows of a dense table by token id, times a scale. Backward is the ordered scatter of index_rows.cu.
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

template <int kN>
__global__ void embedding_kernel(View ids, View table, View y, float scale) {
  const int64_t t = blockIdx.x, n = y.shape[1];
  const int64_t from = static_cast<int64_t>(ids.as<int32_t>()[t * ids.strides[0]]) * table.strides[0];
  for (int64_t c = threadIdx.x * kN; c < n; c += kThreads * kN) {
    float v[kN];
    load_any<kN>(table.data, table.dtype, from + c * table.strides[1], v);
    if (scale != 1.f)
#pragma unroll
      for (int j = 0; j < kN; ++j) v[j] *= scale;
    store_any<kN>(y.data, y.dtype, t * y.strides[0] + c * y.strides[1], v);
  }
}

}  // namespace

void launch_embedding(StreamHandle stream, const View& ids, const View& table, const View& y, float scale, int pack) {
  const unsigned rows = static_cast<unsigned>(y.shape[0]);
  if (pack == 4)
    embedding_kernel<4><<<rows, kThreads, 0, stream>>>(ids, table, y, scale);
  else
    embedding_kernel<1><<<rows, kThreads, 0, stream>>>(ids, table, y, scale);
}

}  // namespace pmetal::cuda
