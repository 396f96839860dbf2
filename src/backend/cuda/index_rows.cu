// index_rows: gather and scatter of rows, and of one column per row. Rows that meet are added in order of the index:
// the block of an index's first occurrence adds all its occurrences, so bits never change.
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void gather_rows_kernel(const __grid_constant__ View x, const __grid_constant__ View index,
                                   const __grid_constant__ View y, bool accumulate, int pack) {
  const int64_t i = blockIdx.x, n = y.shape[1];
  const int64_t from = static_cast<int64_t>(index.as<int32_t>()[i * index.strides[0]]) * x.strides[0];
  const int64_t to = i * y.strides[0];
  if (pack == 4) {
    for (int64_t c = (blockIdx.y * int64_t{kThreads} + threadIdx.x) * 4; c < n;
         c += gridDim.y * int64_t{kThreads} * 4) {
      float v[4], w[4];
      load_any<4>(x.data, x.dtype, from + c, v);
      if (accumulate) {
        load_any<4>(y.data, y.dtype, to + c, w);
#pragma unroll
        for (int j = 0; j < 4; ++j) v[j] += w[j];
      }
      store_any<4>(y.data, y.dtype, to + c, v);
    }
    return;
  }
  for (int64_t c = blockIdx.y * int64_t{kThreads} + threadIdx.x; c < n; c += gridDim.y * int64_t{kThreads}) {
    double v = load_one<double>(x.data, x.dtype, from + c * x.strides[1]);
    const int64_t at = to + c * y.strides[1];
    if (accumulate) v += load_one<double>(y.data, y.dtype, at);
    store_one(y.data, y.dtype, at, v);
  }
}

// Distinct indices.
__global__ void scatter_rows_kernel(const __grid_constant__ View x, const __grid_constant__ View index,
                                    const __grid_constant__ View y) {
  const int64_t i = blockIdx.x, n = y.shape[1];
  const int64_t to = static_cast<int64_t>(index.as<int32_t>()[i * index.strides[0]]) * y.strides[0];
  for (int64_t c = blockIdx.y * int64_t{kThreads} + threadIdx.x; c < n; c += gridDim.y * int64_t{kThreads})
    store_one(y.data, y.dtype, to + c * y.strides[1],
              load_one<double>(x.data, x.dtype, i * x.strides[0] + c * x.strides[1]));
}

// The same for whole chunks of 16 bytes.
__global__ void scatter_chunks_kernel(const uint4* x, const __grid_constant__ View index, uint4* y, int64_t x_step,
                                      int64_t y_step, int64_t n) {
  const int64_t i = blockIdx.x, to = static_cast<int64_t>(index.as<int32_t>()[i * index.strides[0]]) * y_step;
  for (int64_t c = blockIdx.y * int64_t{kThreads} + threadIdx.x; c < n; c += gridDim.y * int64_t{kThreads})
    y[to + c] = x[i * x_step + c];
}

// y[id, :] += scale · x[i, :] for all i with index[i] == id, in order of i. Block b serves index[b] when no earlier
// entry has the same id. `skip`: an id that gets nothing.
__global__ void scatter_add_kernel(const __grid_constant__ View x, const __grid_constant__ View index,
                                   const __grid_constant__ View y, float scale, int64_t skip, int64_t m) {
  __shared__ int matches[kThreads];
  __shared__ int n_matches;
  const int32_t* ids = index.as<int32_t>();
  const int64_t step = index.strides[0], own = blockIdx.x, n = y.shape[1];
  const int32_t id = ids[own * step];
  if (id == skip) return;
  int earlier = 0;
  for (int64_t base = 0; base < own && !earlier; base += kThreads * 8) {
    int found = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int64_t at = base + j * kThreads + threadIdx.x;
      found |= at < own && ids[at * step] == id;
    }
    earlier = __syncthreads_or(found);
  }
  if (earlier) return;
  for (int64_t base = own; base < m; base += kThreads) {
    const bool hit = base + threadIdx.x < m && ids[(base + threadIdx.x) * step] == id;
    if (!__syncthreads_or(hit)) continue;
    if (threadIdx.x < 32) {  // one warp lists the hits in order
      int count = 0;
      for (int part = 0; part < kThreads; part += 32) {
        const int64_t at = base + part + threadIdx.x;
        const bool mine = at < m && ids[at * step] == id;
        const unsigned mask = __ballot_sync(0xffffffffu, mine);
        if (mine) matches[count + __popc(mask & ((1u << threadIdx.x) - 1))] = part + threadIdx.x;
        count += __popc(mask);
      }
      if (threadIdx.x == 0) n_matches = count;
    }
    __syncthreads();
    for (int64_t c = threadIdx.x; c < n; c += kThreads) {
      const int64_t to = id * y.strides[0] + c * y.strides[1];
      float sum = load_one<float>(y.data, y.dtype, to);
      for (int k = 0; k < n_matches; ++k)
        sum += scale * load_one<float>(x.data, x.dtype, (base + matches[k]) * x.strides[0] + c * x.strides[1]);
      store_one(y.data, y.dtype, to, sum);
    }
    __syncthreads();
  }
}

__global__ void gather_columns_kernel(const __grid_constant__ View x, const __grid_constant__ View index,
                                      const __grid_constant__ View y) {
  const int64_t r = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (r >= x.shape[0]) return;
  const int64_t at = r * x.strides[0] + index.as<int32_t>()[r * index.strides[0]] * x.strides[1];
  store_one(y.data, y.dtype, r * y.strides[0], load_one<double>(x.data, x.dtype, at));
}

__global__ void scatter_columns_kernel(const __grid_constant__ View x, const __grid_constant__ View index,
                                       const __grid_constant__ View y, bool accumulate) {
  const int64_t r = blockIdx.x;
  const int64_t hit = index.as<int32_t>()[r * index.strides[0]];
  const double v = load_one<double>(x.data, x.dtype, r * x.strides[0]);
  for (int64_t c = threadIdx.x; c < y.shape[1]; c += kThreads) {
    const int64_t at = r * y.strides[0] + c * y.strides[1];
    if (accumulate) {
      if (c == hit) store_one(y.data, y.dtype, at, load_one<double>(y.data, y.dtype, at) + v);
    } else {
      store_one(y.data, y.dtype, at, c == hit ? v : 0.0);
    }
  }
}

}  // namespace

void launch_gather_rows(StreamHandle stream, const View& x, const View& index, const View& y, bool accumulate,
                        int pack) {
  const dim3 grid(static_cast<unsigned>(y.shape[0]), blocks_for(y.shape[1], kThreads * pack, 8));
  gather_rows_kernel<<<grid, kThreads, 0, stream>>>(x, index, y, accumulate, pack);
}

void launch_scatter_rows(StreamHandle stream, const View& x, const View& index, const View& y) {
  const int64_t chunk = x.dtype == DType::kBF16 || x.dtype == DType::kF16 ? 8 : x.dtype == DType::kF32 ? 4 : 0;
  const auto has_chunks = [&](const View& v) {
    return chunk && v.dtype == x.dtype && v.strides[1] == 1 && v.shape[1] % chunk == 0 && v.strides[0] % chunk == 0 &&
           reinterpret_cast<uintptr_t>(v.data) % 16 == 0;
  };
  if (has_chunks(x) && has_chunks(y)) {
    const int64_t n = x.shape[1] / chunk;
    const dim3 grid(static_cast<unsigned>(x.shape[0]), blocks_for(n, kThreads, 8));
    scatter_chunks_kernel<<<grid, kThreads, 0, stream>>>(static_cast<const uint4*>(x.data), index,
                                                         static_cast<uint4*>(y.data), x.strides[0] / chunk,
                                                         y.strides[0] / chunk, n);
    return;
  }
  const dim3 grid(static_cast<unsigned>(x.shape[0]), blocks_for(y.shape[1], kThreads, 8));
  scatter_rows_kernel<<<grid, kThreads, 0, stream>>>(x, index, y);
}

void launch_scatter_add(StreamHandle stream, const View& x, const View& index, const View& y, float scale,
                        int64_t skip) {
  scatter_add_kernel<<<static_cast<unsigned>(x.shape[0]), kThreads, 0, stream>>>(x, index, y, scale, skip, x.shape[0]);
}

void launch_gather_columns(StreamHandle stream, const View& x, const View& index, const View& y) {
  gather_columns_kernel<<<blocks_for(x.shape[0], kThreads), kThreads, 0, stream>>>(x, index, y);
}

void launch_scatter_columns(StreamHandle stream, const View& x, const View& index, const View& y, bool accumulate) {
  scatter_columns_kernel<<<static_cast<unsigned>(y.shape[0]), kThreads, 0, stream>>>(x, index, y, accumulate);
}

}  // namespace pmetal::cuda
