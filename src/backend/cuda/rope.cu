// rope_table and rope. A pair (a, b) turns to (a·cos − b·sin, b·cos + a·sin); the inverse has −sin. Half-split pairs
// lie rotary/2 apart: a thread takes four neighbours of each half. Bound: bytes.
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void table_kernel(View positions, View inv_freq, View cos, View sin, float scale) {
  const int64_t half = cos.shape[1], i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= cos.shape[0] * half) return;
  const int64_t t = i / half, j = i % half;
  const float angle = static_cast<float>(positions.as<int32_t>()[t * positions.strides[0]]) *
                      inv_freq.as<float>()[j * inv_freq.strides[0]];
  float s, c;
  sincosf(angle, &s, &c);
  cos.as<float>()[t * cos.strides[0] + j] = c * scale;
  sin.as<float>()[t * sin.strides[0] + j] = s * scale;
}

// items: [tokens, heads, d / (2 · kN)]; those beyond the rotary part copy. Index: 32 bits where they suffice, for the
// divisions' sake.
template <class T, int kN, class Index>
__global__ void __launch_bounds__(kThreads) half_kernel(View x, View y, View cos, View sin, float sign, Index items) {
  const Index half = static_cast<Index>(cos.shape[1]), d = static_cast<Index>(x.shape[2]),
              heads = static_cast<Index>(x.shape[1]), per_head = half / kN + (d - 2 * half + kN - 1) / kN;
  for (Index i = blockIdx.x * Index{kThreads} + threadIdx.x; i < items; i += gridDim.x * Index{kThreads}) {
    const Index row = i / per_head, c = i - row * per_head, t = row / heads, h = row - t * heads;
    const T* from = static_cast<const T*>(x.data) + int64_t{t} * x.strides[0] + int64_t{h} * x.strides[1];
    T* to = static_cast<T*>(y.data) + int64_t{t} * y.strides[0] + int64_t{h} * y.strides[1];
    if (c * kN >= half) {
      const Index at = 2 * half + (c - half / kN) * kN;
      Pack<T, kN> p = *reinterpret_cast<const Pack<T, kN>*>(from + at);
      *reinterpret_cast<Pack<T, kN>*>(to + at) = p;
      continue;
    }
    float a[kN], b[kN], cs[kN], sn[kN], u[kN], v[kN];
    load_pack<kN>(from, c * kN, a);
    load_pack<kN>(from, c * kN + half, b);
    load_pack<kN>(cos.as<float>(), int64_t{t} * cos.strides[0] + c * kN, cs);
    load_pack<kN>(sin.as<float>(), int64_t{t} * sin.strides[0] + c * kN, sn);
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      u[j] = a[j] * cs[j] - b[j] * (sign * sn[j]);
      v[j] = b[j] * cs[j] + a[j] * (sign * sn[j]);
    }
    store_pack<kN>(to, c * kN, u);
    store_pack<kN>(to, c * kN + half, v);
  }
}

// any strides, dtypes and pairing: one pair, or one copied element, per thread
__global__ void any_kernel(View x, View y, View cos, View sin, bool interleaved, float sign, int64_t items) {
  const int64_t half = cos.shape[1], d = x.shape[2], per_head = d - half;
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < items; i += gridDim.x * int64_t{kThreads}) {
    const int64_t c = i % per_head, h = i / per_head % x.shape[1], t = i / per_head / x.shape[1];
    const int64_t from = t * x.strides[0] + h * x.strides[1], to = t * y.strides[0] + h * y.strides[1];
    const auto get = [&](int64_t at) { return load_one<float>(x.data, x.dtype, from + at * x.strides[2]); };
    const auto put = [&](int64_t at, float v) { store_one(y.data, y.dtype, to + at * y.strides[2], v); };
    if (c >= half) {
      put(c + half, get(c + half));
      continue;
    }
    const int64_t first = interleaved ? 2 * c : c, second = interleaved ? 2 * c + 1 : c + half;
    const float cs = cos.as<float>()[t * cos.strides[0] + c], sn = sign * sin.as<float>()[t * sin.strides[0] + c];
    const float a = get(first), b = get(second);
    put(first, a * cs - b * sn);
    put(second, b * cs + a * sn);
  }
}

}  // namespace

void launch_rope_table(StreamHandle stream, const View& positions, const View& inv_freq, const View& cos,
                       const View& sin, float scale) {
  table_kernel<<<blocks_for(cos.numel(), kThreads), kThreads, 0, stream>>>(positions, inv_freq, cos, sin, scale);
}

void launch_rope(StreamHandle stream, const View& x, const View& y, const View& cos, const View& sin, bool interleaved,
                 bool inverse, bool packed) {
  const float sign = inverse ? -1.f : 1.f;
  const int64_t half = cos.shape[1], d = x.shape[2], heads = x.shape[0] * x.shape[1];
  if (packed) {
    constexpr int kN = 4;
    const int64_t items = heads * (half / kN + (d - 2 * half + kN - 1) / kN);
    const unsigned blocks = blocks_for(items, kThreads, 132 * 64);
    const auto launch = [&](auto index) {
      if (x.dtype == DType::kBF16)
        half_kernel<bf16, kN><<<blocks, kThreads, 0, stream>>>(x, y, cos, sin, sign, index);
      else
        half_kernel<float, kN><<<blocks, kThreads, 0, stream>>>(x, y, cos, sin, sign, index);
    };
    items < (int64_t{1} << 31) ? launch(static_cast<uint32_t>(items)) : launch(items);
    return;
  }
  const int64_t items = heads * (d - half);
  any_kernel<<<blocks_for(items, kThreads, 132 * 64), kThreads, 0, stream>>>(x, y, cos, sin, interleaved, sign, items);
}

}  // namespace pmetal::cuda
