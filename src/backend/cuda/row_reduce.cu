// row_reduce: softmax, log-softmax, log-sum-exp and sums over the last dimension, a block per row; the sum of
// everything in blocks of 4096 elements, then of the blocks, in a fixed order.
//   softmax      dx = y · (dy − Σ dy·y)        log-softmax  dx = dy − exp(y) · Σ dy
//   log-sum-exp  dx = exp(x − y) · dy          sums         dx = dy
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

template <class A>
struct Row {
  const View& v;
  int64_t at;
  __device__ Row(const View& view, int64_t r) : v(view), at(row_offset(view, r)) {}
  __device__ A get(int64_t c) const { return load_one<A>(v.data, v.dtype, at + c * v.strides[v.rank - 1]); }
  __device__ void put(int64_t c, A value) const { store_one(v.data, v.dtype, at + c * v.strides[v.rank - 1], value); }
};

template <class A>
__global__ void row_kernel(const __grid_constant__ View x, const __grid_constant__ View y, int op) {
  const int64_t r = blockIdx.x, n = x.shape[x.rank - 1];
  const Row<A> in(x, r);
  const A none = -INFINITY;
  if (op == kRowSum) {
    A sum = 0;
    for (int64_t c = threadIdx.x; c < n; c += kThreads) sum += in.get(c);
    sum = block_sum(sum);
    if (threadIdx.x == 0) store_one(y.data, y.dtype, r * y.strides[0], sum);
    return;
  }
  A max = none, nan = 0;
  for (int64_t c = threadIdx.x; c < n; c += kThreads) {
    const A v = in.get(c);
    max = v > max ? v : max;
    nan += v != v ? A(1) : A(0);
  }
  max = block_max(max);
  if (block_sum(nan) > 0) max = NAN;
  A sum = 0;
  if (max != none)
    for (int64_t c = threadIdx.x; c < n; c += kThreads) sum += exp(in.get(c) - max);
  sum = block_sum(sum);
  const A log_of_sum = log(sum);
  if (op == kRowLogSumExp) {
    if (threadIdx.x == 0) store_one(y.data, y.dtype, r * y.strides[0], max + log_of_sum);
    return;
  }
  const Row<A> out(y, r);
  const bool empty = sum == A(0);
  for (int64_t c = threadIdx.x; c < n; c += kThreads) {
    const A v = in.get(c);
    if (op == kRowSoftmax)
      out.put(c, empty ? A(0) : exp(v - max) / sum);
    else
      out.put(c, empty ? max : (v - max) - log_of_sum);
  }
}

template <class A>
__global__ void row_backward_kernel(const __grid_constant__ View x, const __grid_constant__ View y,
                                    const __grid_constant__ View dy, const __grid_constant__ View dx, int op) {
  const int64_t r = blockIdx.x, n = dx.shape[dx.rank - 1];
  const Row<A> to(dx, r);
  A value = 0, lse = 0;
  if (op == kRowSoftmax || op == kRowLogSoftmax) {
    const Row<A> p(y, r), g(dy, r);
    A sum = 0;
    for (int64_t c = threadIdx.x; c < n; c += kThreads) sum += op == kRowSoftmax ? p.get(c) * g.get(c) : g.get(c);
    sum = block_sum(sum);
    for (int64_t c = threadIdx.x; c < n; c += kThreads)
      to.put(c, op == kRowSoftmax ? p.get(c) * (g.get(c) - sum) : g.get(c) - exp(p.get(c)) * sum);
    return;
  }
  if (op == kAllSum) {
    value = load_one<A>(dy.data, dy.dtype, 0);
  } else {
    value = load_one<A>(dy.data, dy.dtype, r * dy.strides[0]);
    if (op == kRowLogSumExp) lse = load_one<A>(y.data, y.dtype, r * y.strides[0]);
  }
  const bool empty = lse == A(-INFINITY);
  for (int64_t c = threadIdx.x; c < n; c += kThreads)
    to.put(c, op == kRowLogSumExp ? (empty ? A(0) : exp(Row<A>(x, r).get(c) - lse) * value) : value);
}

template <class A>
__global__ void partial_sum_kernel(const __grid_constant__ View x, A* partial, int64_t n) {
  const int64_t first = blockIdx.x * kSumBlock;
  A sum = 0;
  for (int64_t i = threadIdx.x; i < kSumBlock && first + i < n; i += kThreads)
    sum += load_one<A>(x.data, x.dtype, offset_of(x, first + i));
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <class A>
__global__ void final_sum_kernel(const A* partial, int64_t n, const __grid_constant__ View y) {
  A sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) store_one(y.data, y.dtype, 0, sum);
}

template <class A>
void forward(StreamHandle stream, const View& x, const View& y, int op, void* workspace) {
  if (op == kAllSum) {
    const int64_t n = x.numel(), blocks = (n + kSumBlock - 1) / kSumBlock;
    A* partial = static_cast<A*>(workspace);
    if (blocks) partial_sum_kernel<A><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(x, partial, n);
    final_sum_kernel<A><<<1, kThreads, 0, stream>>>(partial, blocks, y);
    return;
  }
  const int64_t rows = x.numel() / (x.shape[x.rank - 1] ? x.shape[x.rank - 1] : 1);
  row_kernel<A><<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(x, y, op);
}

}  // namespace

void launch_row_reduce(StreamHandle stream, const View& x, const View& y, int op, bool wide, void* workspace) {
  wide ? forward<double>(stream, x, y, op, workspace) : forward<float>(stream, x, y, op, workspace);
}

void launch_row_reduce_backward(StreamHandle stream, const View& x, const View& y, const View& dy, const View& dx,
                                int op, bool wide) {
  const unsigned rows = static_cast<unsigned>(dx.numel() / dx.shape[dx.rank - 1]);
  if (wide)
    row_backward_kernel<double><<<rows, kThreads, 0, stream>>>(x, y, dy, dx, op);
  else
    row_backward_kernel<float><<<rows, kThreads, 0, stream>>>(x, y, dy, dx, op);
}

}  // namespace pmetal::cuda
