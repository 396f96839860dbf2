// Shared by the CUDA kernels: element types, packs of elements, sums over warps and blocks. Nothing here needs the
// project's heavy headers: nvcc reads light ones only, and each kernel's launcher lies in the .cc of the same stem.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "backend/cuda/kernels.h"

namespace pmetal::cuda {

using bf16 = __nv_bfloat16;
using f16 = __half;

template <class A, class T>
__device__ __forceinline__ A widen(T v) {
  if constexpr (sizeof(T) == 2 && (__is_same(T, bf16)))
    return static_cast<A>(__bfloat162float(v));
  else if constexpr (__is_same(T, f16))
    return static_cast<A>(__half2float(v));
  else
    return static_cast<A>(v);
}

template <class T, class A>
__device__ __forceinline__ T narrow(A v) {
  if constexpr (__is_same(T, bf16))
    return __float2bfloat16_rn(static_cast<float>(v));
  else if constexpr (__is_same(T, f16))
    return __float2half_rn(static_cast<float>(v));
  else
    return static_cast<T>(v);
}

template <class T, int kN>
struct alignas(sizeof(T) * kN) Pack {
  T v[kN];
};

// kN elements from element `at` on, as A. Their address is aligned to the pack.
template <int kN, class T, class A>
__device__ __forceinline__ void load_pack(const T* data, int64_t at, A (&to)[kN]) {
  const Pack<T, kN> p = *reinterpret_cast<const Pack<T, kN>*>(data + at);
#pragma unroll
  for (int i = 0; i < kN; ++i) to[i] = widen<A>(p.v[i]);
}
template <int kN, class T, class A>
__device__ __forceinline__ void store_pack(T* data, int64_t at, const A (&from)[kN]) {
  Pack<T, kN> p;
#pragma unroll
  for (int i = 0; i < kN; ++i) p.v[i] = narrow<T>(from[i]);
  *reinterpret_cast<Pack<T, kN>*>(data + at) = p;
}

// The same for a dtype known at run time: the branch is one for the whole grid.
template <int kN, class A>
__device__ __forceinline__ void load_any(const void* data, DType dtype, int64_t at, A (&to)[kN]) {
  switch (dtype) {
    case DType::kF32: return load_pack<kN>(static_cast<const float*>(data), at, to);
    case DType::kBF16: return load_pack<kN>(static_cast<const bf16*>(data), at, to);
    case DType::kF16: return load_pack<kN>(static_cast<const f16*>(data), at, to);
    case DType::kF64: return load_pack<kN>(static_cast<const double*>(data), at, to);
    case DType::kI32: return load_pack<kN>(static_cast<const int32_t*>(data), at, to);
    case DType::kI64: return load_pack<kN>(static_cast<const int64_t*>(data), at, to);
    default: return load_pack<kN>(static_cast<const uint8_t*>(data), at, to);
  }
}
template <int kN, class A>
__device__ __forceinline__ void store_any(void* data, DType dtype, int64_t at, const A (&from)[kN]) {
  switch (dtype) {
    case DType::kF32: return store_pack<kN>(static_cast<float*>(data), at, from);
    case DType::kBF16: return store_pack<kN>(static_cast<bf16*>(data), at, from);
    case DType::kF16: return store_pack<kN>(static_cast<f16*>(data), at, from);
    case DType::kF64: return store_pack<kN>(static_cast<double*>(data), at, from);
    case DType::kI32: return store_pack<kN>(static_cast<int32_t*>(data), at, from);
    case DType::kI64: return store_pack<kN>(static_cast<int64_t*>(data), at, from);
    default: return store_pack<kN>(static_cast<uint8_t*>(data), at, from);
  }
}
template <class A>
__device__ __forceinline__ A load_one(const void* data, DType dtype, int64_t at) {
  A v[1];
  load_any<1>(data, dtype, at, v);
  return v[0];
}
template <class A>
__device__ __forceinline__ void store_one(void* data, DType dtype, int64_t at, A value) {
  const A v[1] = {value};
  store_any<1>(data, dtype, at, v);
}

// value rounded to T and back
template <class T, class A>
__device__ __forceinline__ A round_through(A v) {
  return widen<A>(narrow<T>(v));
}
template <class A>
__device__ __forceinline__ A round_any(DType dtype, A v) {
  if (dtype == DType::kBF16) return round_through<bf16>(v);
  if (dtype == DType::kF16) return round_through<f16>(v);
  return v;
}

template <class A>
__device__ __forceinline__ A warp_sum(A v) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) v += __shfl_xor_sync(0xffffffffu, v, lane);
  return v;
}
template <class A>
__device__ __forceinline__ A warp_max(A v) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) {
    const A other = __shfl_xor_sync(0xffffffffu, v, lane);
    v = other > v ? other : v;
  }
  return v;
}
// Over a block of whole warps; every thread gets the result. Fixed order: same bits always.
template <class A>
__device__ __forceinline__ A block_sum(A v) {
  __shared__ A part[33];
  const int warps = (static_cast<int>(blockDim.x) + 31) / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  v = warp_sum(v);
  if (lane == 0) part[warp] = v;
  __syncthreads();
  if (warp == 0) {
    A sum = warp_sum(lane < warps ? part[lane] : A(0));
    if (lane == 0) part[32] = sum;
  }
  __syncthreads();
  const A result = part[32];
  __syncthreads();
  return result;
}
template <class A>
__device__ __forceinline__ A block_max(A v) {
  __shared__ A part[33];
  const int warps = (static_cast<int>(blockDim.x) + 31) / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  v = warp_max(v);
  if (lane == 0) part[warp] = v;
  __syncthreads();
  if (warp == 0) {
    A max = warp_max(part[lane < warps ? lane : 0]);
    if (lane == 0) part[32] = max;
  }
  __syncthreads();
  const A result = part[32];
  __syncthreads();
  return result;
}

// element offset of linear index `i` (row-major over the view's shape)
__device__ __forceinline__ int64_t offset_of(const View& v, int64_t i) {
  int64_t at = 0;
  if (i < (int64_t{1} << 31)) {
    uint32_t left = static_cast<uint32_t>(i);
    for (int d = v.rank - 1; d > 0; --d) {
      const uint32_t n = static_cast<uint32_t>(v.shape[d]);
      at += static_cast<int64_t>(left % n) * v.strides[d];
      left /= n;
    }
    return at + static_cast<int64_t>(left) * v.strides[0];
  }
  for (int d = v.rank - 1; d > 0; --d) {
    at += i % v.shape[d] * v.strides[d];
    i /= v.shape[d];
  }
  return at + i * v.strides[0];
}
// element offset of row `r`, rows being all dimensions but the last
__device__ __forceinline__ int64_t row_offset(const View& v, int64_t r) {
  if (v.rank == 2) return r * v.strides[0];
  int64_t at = 0;
  for (int d = v.rank - 2; d >= 0; --d) {
    at += r % v.shape[d] * v.strides[d];
    r /= v.shape[d];
  }
  return at;
}

inline unsigned blocks_for(int64_t items, int64_t per_block, int64_t most = 1 << 30) {
  const int64_t n = (items + per_block - 1) / per_block;
  return static_cast<unsigned>(n < 1 ? 1 : n > most ? most : n);
}

}  // namespace pmetal::cuda
