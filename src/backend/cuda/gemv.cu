// Products of up to four rows with bf16 weights, and what stands around them in a decode step, in one launch:
//   h = x, or rms_norm(x)                       [m, k], once per block, in shared memory
//   y_p = h · W_pᵀ (+ bias_p)                   up to three weights that share the input, or
//   y = act(h · W_0ᵀ) · (h · W_1ᵀ), or          gate and up
//   y = residual + h · W_0ᵀ
// Bound: the bytes of W, read once. A warp (or kSplit of them, where W has few rows) owns kOutputs rows of W at a time
// and walks them in loads of 16 bytes, eight in flight; it takes further rows until none is left. Launched to overlap
// with the kernel before it: its first weights are on their way before that one's results are needed. Sums have a fixed
// order that does not depend on m: a row's bits are those it has alone.
#include "backend/cuda/glu.cuh"
#include "backend/cuda/overlap.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kInFlight = 8;
constexpr int kStep = 256;                 // columns of a warp's load
constexpr int64_t kMostBytes = 160 << 10;  // of x in shared memory

__device__ __forceinline__ uint4 load_stream(const bf16* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
__device__ __forceinline__ float low_of(uint32_t v) { return __uint_as_float(v << 16); }
__device__ __forceinline__ float high_of(uint32_t v) { return __uint_as_float(v & 0xffff0000u); }
__device__ __forceinline__ float dot8(const uint4& a, const uint4& b, float sum) {
  const uint32_t u[4] = {a.x, a.y, a.z, a.w}, v[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum = fmaf(low_of(u[i]), low_of(v[i]), sum);
    sum = fmaf(high_of(u[i]), high_of(v[i]), sum);
  }
  return sum;
}

struct Row {
  int part, n;  // of which weight, which row
};
// the i-th row, counted over all parts
__device__ __forceinline__ Row row_of(const GemvLaunch& a, int i) {
  int p = 0;
  while (p + 1 < a.parts && i >= a.part[p].n) i -= a.part[p++].n;
  return {p, i};
}

// The rows of x, normalised if asked for, to shared memory [m, k].
template <int kM>
__device__ __forceinline__ void load_input(const GemvLaunch& a, bf16* to) {
  __shared__ float sums[kM][kWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    if (m >= a.m) break;
    float squares = 0;
    for (int c = threadIdx.x * 8; c < a.k; c += kThreads * 8) {
      const uint4 v = *reinterpret_cast<const uint4*>(static_cast<const bf16*>(a.x) + m * a.x_stride + c);
      *reinterpret_cast<uint4*>(to + m * a.k + c) = v;
      squares = dot8(v, v, squares);
    }
    if (!a.norm) continue;
    squares = warp_sum(squares);
    if (lane == 0) sums[m][warp] = squares;
  }
  if (a.norm) {
    __syncthreads();
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      if (m >= a.m) break;
      float squares = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) squares += sums[m][w];
      const float rstd = 1.f / sqrtf(squares / static_cast<float>(a.k) + a.eps);
      for (int c = threadIdx.x * 8; c < a.k; c += kThreads * 8) {  // what this thread wrote
        float v[8], w[8];
        load_pack<8>(to, m * a.k + c, v);
        load_any<8>(a.norm, a.norm_dtype, c, w);
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] = round_through<bf16>(v[i] * rstd) * w[i];
        store_pack<8>(to, m * a.k + c, v);
      }
    }
  }
  __syncthreads();
}

template <int kM, int kOutputs, int kSplit, bool kGlu>
__global__ void __launch_bounds__(kThreads, kM == 1 ? 3 : 2) gemv_kernel(GemvLaunch a) {
  static_assert(!kGlu || kOutputs == 2);
  constexpr int kUnroll = kInFlight / kOutputs, kGroups = kWarps / kSplit;
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ float partial[kSplit > 1 ? kWarps : 1][kM * kOutputs];
  bf16* const x = reinterpret_cast<bf16*>(shared);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = warp / kSplit, share = warp % kSplit;
  constexpr int kAtOnce = kGlu ? 1 : kOutputs;  // rows of the count
  const int stride = gridDim.x * kGroups * kAtOnce;
  int first = (blockIdx.x * kGroups + group) * kAtOnce;

  const bf16* w[kOutputs];
  const auto aim = [&](int row) {
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) {
      const Row r = kGlu ? Row{o, min(row, a.rows - 1)} : row_of(a, min(row + o, a.rows - 1));
      w[o] = static_cast<const bf16*>(a.part[r.part].w) + int64_t{r.n} * a.k + share * kStep + lane * 8;
    }
  };
  uint4 rows[kUnroll][kOutputs];
  const auto load = [&](int base) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int c = base + u * kStep * kSplit;
      const bool exists = c + share * kStep + lane * 8 < a.k;
#pragma unroll
      for (int o = 0; o < kOutputs; ++o) rows[u][o] = exists ? load_stream(w[o] + c) : make_uint4(0, 0, 0, 0);
    }
  };

  aim(first);
  let_next_start();
  if (!a.early) {
    // not sure that nobody is writing the weights: their lines may come to L2, the values only after the wait
    if (first < a.rows)
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
#pragma unroll
        for (int o = 0; o < kOutputs; ++o)
          if (u * kStep * kSplit + share * kStep + lane * 8 < a.k) prefetch_l2(w[o] + u * kStep * kSplit);
    wait_for_inputs();
  }
  if (first < a.rows) load(0);
  if (a.early) wait_for_inputs();
  load_input<kM>(a, x);

  for (bool is_first = true;; is_first = false, first += stride) {
    // all warps of a block that share rows go round equally often
    if ((kSplit > 1 ? first - group * kAtOnce : first) >= a.rows) break;
    if (!is_first) {
      aim(first);
      load(0);
    }
    float sums[kM][kOutputs];
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int o = 0; o < kOutputs; ++o) sums[m][o] = 0;
    for (int base = 0; base < a.k;) {
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int c = base + (u * kSplit + share) * kStep + lane * 8;
        if (c < a.k) {
#pragma unroll
          for (int m = 0; m < kM; ++m) {
            if (m >= a.m) break;
            const uint4 v = *reinterpret_cast<const uint4*>(x + m * a.k + c);
#pragma unroll
            for (int o = 0; o < kOutputs; ++o) sums[m][o] = dot8(rows[u][o], v, sums[m][o]);
          }
        }
      }
      base += kUnroll * kSplit * kStep;
      if (base < a.k) load(base);
    }
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int o = 0; o < kOutputs; ++o) sums[m][o] = warp_sum(sums[m][o]);
    if constexpr (kSplit > 1) {
      if (lane == 0)
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
          for (int o = 0; o < kOutputs; ++o) partial[warp][m * kOutputs + o] = sums[m][o];
      __syncthreads();
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int o = 0; o < kOutputs; ++o) {
          sums[m][o] = 0;
#pragma unroll
          for (int s = 0; s < kSplit; ++s) sums[m][o] += partial[group * kSplit + s][m * kOutputs + o];
        }
      __syncthreads();
    }
    // lane m writes row m of the result
    if (share != 0 || lane >= a.m) continue;
#pragma unroll
    for (int o = 0; o < kAtOnce; ++o) {
      if (first + o >= a.rows) break;
      const auto mine = [&](int output) {
        float sum = sums[0][output];
#pragma unroll
        for (int m = 1; m < kM; ++m)
          if (lane == m) sum = sums[m][output];
        return sum;
      };
      const Row r = kGlu ? Row{0, first} : row_of(a, first + o);
      const GemvLaunch::Part& part = a.part[r.part];
      float y = mine(o);
      if (part.bias) y += load_one<float>(part.bias, part.bias_dtype, r.n);
      if constexpr (kGlu) {
        float up = mine(1);
        if (a.part[1].bias) up += load_one<float>(a.part[1].bias, a.part[1].bias_dtype, r.n);
        y = activated(a.activation, round_through<bf16>(y)) * round_through<bf16>(up);
      }
      if (a.residual)
        y = round_through<bf16>(y) + widen<float>(static_cast<const bf16*>(a.residual)[lane * a.residual_stride + r.n]);
      const int64_t to = lane * part.y_stride + r.n;
      if (a.accumulate) y += load_one<float>(part.y, a.y_dtype, to);
      store_one(part.y, a.y_dtype, to, y);
    }
  }
}

template <int kM, int kOutputs, int kSplit, bool kGlu>
void run(StreamHandle stream, const GemvLaunch& a) {
  const auto kernel = gemv_kernel<kM, kOutputs, kSplit, kGlu>;
  static SharedLimit limit;
  allow_shared(limit, reinterpret_cast<const void*>(kernel), kMostBytes);
  const int per_block = kWarps / kSplit * (kGlu ? 1 : kOutputs), all = (a.rows + per_block - 1) / per_block;
  const int most = a.multiprocessors * (a.blocks ? a.blocks : kM == 1 ? 3 : 2);
  launch_overlapped(stream, kernel, dim3(static_cast<unsigned>(all < most ? all : most)), dim3(kThreads),
                    static_cast<size_t>(a.m) * static_cast<size_t>(a.k) * 2, a);
}

template <int kM>
void run_rows(StreamHandle stream, const GemvLaunch& a) {
  // few rows: two warps share one, so that every multiprocessor has enough loads in flight; long ones where a row each
  // leaves some warps with twice the work of others
  const int warps = a.multiprocessors * kWarps;
  const int split = a.split ? a.split : a.rows <= 2 * warps || (a.rows < 6 * warps && a.k >= 4096) ? 2 : 1;
  if (a.glu)
    split >= 2 ? run<kM, 2, 2, true>(stream, a) : run<kM, 2, 1, true>(stream, a);
  else if (split == 2)
    run<kM, 1, 2, false>(stream, a);
  else if (a.outputs == 1 || (a.outputs == 0 && a.rows < 6 * warps))
    run<kM, 1, 1, false>(stream, a);
  else
    run<kM, 2, 1, false>(stream, a);
}

}  // namespace

bool gemv_accepts(int64_t m, int64_t k) { return m >= 1 && m <= 4 && k % 8 == 0 && k > 0 && m * k * 2 <= kMostBytes; }

void launch_gemv(StreamHandle stream, GemvLaunch a) {
  a.rows = 0;
  for (int p = 0; p < (a.glu ? 1 : a.parts); ++p) a.rows += a.part[p].n;
  if (a.m == 1)
    run_rows<1>(stream, a);
  else if (a.m == 2)
    run_rows<2>(stream, a);
  else
    run_rows<4>(stream, a);
}

}  // namespace pmetal::cuda
