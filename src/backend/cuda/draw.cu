// draw: a token for each of some rows of logits z (ops/draw.h), in passes over slices of the rows, which lie in L2:
//   top    the largest z / T
//   mass   (top-p) e^(z / T - top) summed in bins of 1/64 of the distance to the top
//   cut    (top-p) the bin in which the mass reaches p of all
//   gather (top-p) what lies in that bin; sort: which of it is the last to be kept
//   score  the two least ln E - z / T among what is kept
//   choose the token, where the two differ by more than the host's f32 arithmetic could
// The sampler of the host works in f32 and f64 in an order of its own; wherever a decision here falls closer than its
// rounding reaches (a mass within 1e-9 of p, scores within kMargin) the row is left to it: -1. So the token is the
// host's or none, and sums need no fixed order.
#include "backend/cuda/device.cuh"
#include "backend/cuda/draw.h"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256, kBins = 2048, kMostGathered = 1024;
constexpr float kBinsPerUnit = 64, kLeastLogE = -23;  // below ln(2^-33), the least ln E there is
constexpr double kMassMargin = 1e-9, kMargin = 1e-5;

struct Best {
  double score, second;  // the least two
  int id;
};
struct RowState {
  double mass[kBins];
  Best best[kMostSlices];
  float tops[kMostSlices];
  unsigned long long gathered[kMostGathered];  // ordered bits of z / T, falling; then the id
  double before;                               // mass in front of the bin, part of all
  double all;
  int bin, n_gathered;
  float last;   // the last that is kept, by value and then id
  int last_id;  // -1: undecided
};

__device__ __forceinline__ float scaled(float z, float temperature) {
  return temperature == 1.f ? z : __fdiv_rn(z, temperature);
}
__device__ __forceinline__ int bin_of(float top, float z) {
  return static_cast<int>(fminf((top - z) * kBinsPerUnit, static_cast<float>(kBins - 1)));
}
__device__ __forceinline__ void slice_of(int n, int& begin, int& end) {  // in fours, as the noise comes
  const int step = ((n + 3) / 4 + static_cast<int>(gridDim.x) - 1) / static_cast<int>(gridDim.x) * 4;
  begin = min(static_cast<int>(blockIdx.x) * step, n);
  end = min(begin + step, n);
}
// smaller for what comes earlier: larger values, then lower ids
__device__ __forceinline__ unsigned long long order_of(float z, int id) {
  const uint32_t bits = __float_as_uint(z + 0.f);  // -0 as 0
  const uint32_t rising = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<unsigned long long>(~rising) << 32 | static_cast<uint32_t>(id);
}
__device__ __forceinline__ float value_in(unsigned long long order) {
  const uint32_t rising = ~static_cast<uint32_t>(order >> 32);
  return __uint_as_float(rising & 0x80000000u ? rising & 0x7fffffffu : ~rising);
}

__global__ void __launch_bounds__(kThreads) top_kernel(DrawLaunch a, RowState* states) {
  const DrawRowLaunch row = a.rows[blockIdx.y];
  RowState& state = states[blockIdx.y];
  const float* z = a.logits + row.row * a.stride;
  int begin, end;
  slice_of(row.vocabulary, begin, end);
  float top = -INFINITY, bad = 0;
  for (int i = begin + threadIdx.x; i < end; i += kThreads) {
    const float v = scaled(z[i], row.temperature);
    top = fmaxf(top, v);
    if (!(v < INFINITY)) bad = 1;
  }
  top = block_max(top);
  bad = block_max(bad);
  if (threadIdx.x == 0) state.tops[blockIdx.x] = bad > 0 ? NAN : top;
  if (blockIdx.x > 0) return;
  for (int i = threadIdx.x; i < kBins; i += kThreads) state.mass[i] = 0;
  if (threadIdx.x == 0) state.n_gathered = 0;
}
// NaN where any slice says so
__device__ float row_top(const RowState& state, int slices) {
  float top = -INFINITY, bad = 0;
  for (int i = threadIdx.x; i < slices; i += kThreads) {
    const float v = state.tops[i];
    top = fmaxf(top, v);
    if (v != v) bad = 1;
  }
  top = block_max(top);
  return block_max(bad) > 0 ? NAN : top;
}

__global__ void __launch_bounds__(kThreads) mass_kernel(DrawLaunch a, RowState* states) {
  __shared__ double mass[kBins];
  const DrawRowLaunch row = a.rows[blockIdx.y];
  RowState& state = states[blockIdx.y];
  if (row.top_p >= 1) return;
  const float top = row_top(state, gridDim.x);
  if (!(top > -INFINITY)) return;
  for (int i = threadIdx.x; i < kBins; i += kThreads) mass[i] = 0;
  __syncthreads();
  const float* z = a.logits + row.row * a.stride;
  int begin, end;
  slice_of(row.vocabulary, begin, end);
  for (int i = begin + threadIdx.x; i < end; i += kThreads) {
    const float v = scaled(z[i], row.temperature);
    if (v > -INFINITY) atomicAdd(&mass[bin_of(top, v)], exp(static_cast<double>(v) - static_cast<double>(top)));
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kBins; i += kThreads)
    if (mass[i] > 0) atomicAdd(&state.mass[i], mass[i]);
}

// one block per row
__global__ void __launch_bounds__(kThreads) cut_kernel(DrawLaunch a, RowState* states) {
  __shared__ double sums[kThreads];
  const DrawRowLaunch row = a.rows[blockIdx.x];
  RowState& state = states[blockIdx.x];
  if (row.top_p >= 1) return;
  constexpr int kEach = kBins / kThreads;
  double mine = 0;
  for (int i = 0; i < kEach; ++i) mine += state.mass[threadIdx.x * kEach + i];
  sums[threadIdx.x] = mine;
  __syncthreads();
  if (threadIdx.x > 0) return;
  double all = 0, before = 0;
  for (int t = 0; t < kThreads; ++t) all += sums[t];
  const double wanted = row.top_p * all;
  int t = 0;
  while (t + 1 < kThreads && before + sums[t] < wanted) before += sums[t++];
  int bin = t * kEach;
  while (bin + 1 < (t + 1) * kEach && before + state.mass[bin] < wanted) before += state.mass[bin++];
  state.bin = bin;
  state.before = before / all;
  state.all = all;
}

__global__ void __launch_bounds__(kThreads) gather_kernel(DrawLaunch a, RowState* states) {
  const DrawRowLaunch row = a.rows[blockIdx.y];
  RowState& state = states[blockIdx.y];
  if (row.top_p >= 1) return;
  const float top = row_top(state, gridDim.x);
  if (!(top > -INFINITY)) return;
  const int bin = state.bin;
  const float* z = a.logits + row.row * a.stride;
  int begin, end;
  slice_of(row.vocabulary, begin, end);
  for (int i = begin + threadIdx.x; i < end; i += kThreads) {
    const float v = scaled(z[i], row.temperature);
    if (v == -INFINITY || bin_of(top, v) != bin) continue;
    const int at = atomicAdd(&state.n_gathered, 1);
    if (at < kMostGathered) state.gathered[at] = order_of(v, i);
  }
}

// one block per row: sorts the bin and finds the last token that is kept
__global__ void __launch_bounds__(kThreads) sort_kernel(DrawLaunch a, RowState* states, int slices) {
  __shared__ unsigned long long order[kMostGathered];
  __shared__ double part[kMostGathered];
  const DrawRowLaunch row = a.rows[blockIdx.x];
  RowState& state = states[blockIdx.x];
  if (row.top_p >= 1) return;
  const float top = row_top(state, slices);
  const int n = state.n_gathered;
  if (!(top > -INFINITY) || n == 0 || n > kMostGathered || state.bin == kBins - 1) {
    if (threadIdx.x == 0) state.last_id = -1;
    return;
  }
  for (int i = threadIdx.x; i < kMostGathered; i += kThreads) order[i] = i < n ? state.gathered[i] : ~0ull;
  __syncthreads();
  for (int size = 2; size <= kMostGathered; size *= 2)
    for (int step = size / 2; step > 0; step /= 2) {
      for (int i = threadIdx.x; i < kMostGathered; i += kThreads) {
        const int other = i ^ step;
        if (other <= i) continue;
        const unsigned long long x = order[i], y = order[other];
        if ((x > y) == ((i & size) == 0)) order[i] = y, order[other] = x;
      }
      __syncthreads();
    }
  for (int i = threadIdx.x; i < n; i += kThreads)
    part[i] = exp(static_cast<double>(value_in(order[i])) - static_cast<double>(top)) / state.all;
  __syncthreads();
  if (threadIdx.x > 0) return;
  double before = state.before;
  int last = 0;
  while (last + 1 < n && before + part[last] < row.top_p) before += part[last++];
  // the one before it must be kept by more than rounding, the one behind it be cut by more than rounding
  const bool is_first = state.bin == 0 && last == 0;
  const bool is_clear = (is_first || before < row.top_p - kMassMargin) && before + part[last] > row.top_p + kMassMargin;
  state.last = value_in(order[last]);
  state.last_id = is_clear ? static_cast<int>(static_cast<uint32_t>(order[last])) : -1;
}

__device__ __forceinline__ void add(Best& b, double score, int id) {
  if (score < b.score || (score == b.score && id < b.id)) {
    b.second = b.score;
    b.score = score;
    b.id = id;
  } else if (score < b.second) {
    b.second = score;
  }
}
__device__ __forceinline__ void merge(Best& b, const Best& o) {
  const double second = fmin(b.second, o.second);
  add(b, o.score, o.id);
  b.second = fmin(b.second, second);
}
__device__ __forceinline__ Best of_lane(const Best& b, int lane) {
  return {__shfl_xor_sync(0xffffffffu, b.score, lane), __shfl_xor_sync(0xffffffffu, b.second, lane),
          __shfl_xor_sync(0xffffffffu, b.id, lane)};
}

__device__ __forceinline__ void philox(const DrawRowLaunch& row, uint32_t block, uint32_t (&c)[4]) {
  uint32_t k0 = row.key[0], k1 = row.key[1];
  c[0] = block, c[1] = row.position, c[2] = row.stream, c[3] = 0;
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t h0 = __umulhi(0xD2511F53u, c[0]), l0 = 0xD2511F53u * c[0];
    const uint32_t h1 = __umulhi(0xCD9E8D57u, c[2]), l1 = 0xCD9E8D57u * c[2];
    c[0] = h1 ^ c[1] ^ k0, c[1] = l1, c[2] = h0 ^ c[3] ^ k1, c[3] = l0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}
__device__ __forceinline__ float uniform_open(uint32_t x) {  // as base/rng.h
  const float u = static_cast<float>((static_cast<double>(x) + 0.5) * 0x1p-32);
  return fminf(u, 1.f - 0x1p-24f);
}

__global__ void __launch_bounds__(kThreads) score_kernel(DrawLaunch a, RowState* states) {
  __shared__ Best parts[kThreads / 32];
  const DrawRowLaunch row = a.rows[blockIdx.y];
  RowState& state = states[blockIdx.y];
  const float top = row_top(state, gridDim.x);
  Best best{INFINITY, INFINITY, 0x7fffffff};
  const bool cuts = row.top_p < 1;
  if (top > -INFINITY && !(cuts && state.last_id < 0)) {
    const unsigned long long last = cuts ? order_of(state.last, state.last_id) : ~0ull;
    const double limit = row.log_min_p < 0 ? static_cast<double>(top) + row.log_min_p : -INFINITY;
    const float* z = a.logits + row.row * a.stride;
    int begin, end;
    slice_of(row.vocabulary, begin, end);
    for (int i = begin + threadIdx.x * 4; i < end; i += kThreads * 4) {
      uint32_t noise[4];
      bool is_drawn = false;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (i + j >= end) break;
        const float v = scaled(z[i + j], row.temperature);
        if (v == -INFINITY || static_cast<double>(v) < limit || order_of(v, i + j) > last) continue;
        if (static_cast<double>(kLeastLogE - v) > best.second) continue;  // no noise could make it win or come near
        if (!is_drawn) philox(row, static_cast<uint32_t>(i) >> 2, noise);
        is_drawn = true;
        const double log_e = log(-log1p(-static_cast<double>(uniform_open(noise[j]))));
        add(best, log_e - static_cast<double>(v), i + j);
      }
    }
  }
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) merge(best, of_lane(best, lane));
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int w = 1; w < kThreads / 32; ++w) merge(best, parts[w]);
  state.best[blockIdx.x] = best;
}

__global__ void __launch_bounds__(32) choose_kernel(DrawLaunch a, RowState* states, int slices) {
  const RowState& state = states[blockIdx.x];
  Best best{INFINITY, INFINITY, 0x7fffffff};
  for (int i = threadIdx.x; i < slices; i += 32) merge(best, state.best[i]);
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) merge(best, of_lane(best, lane));
  if (threadIdx.x > 0) return;
  const bool is_clear = best.score < INFINITY && best.second - best.score > kMargin + 1e-6 * fabs(best.score);
  a.out[blockIdx.x] = is_clear ? best.id : -1;
}

}  // namespace

int64_t draw_workspace(int64_t draws) { return draws * static_cast<int64_t>(sizeof(RowState)); }

void launch_draw(StreamHandle stream, const DrawLaunch& a) {
  auto* states = static_cast<RowState*>(a.workspace);
  const int slices = a.draws >= 256 ? 1 : static_cast<int>(256 / a.draws < kMostSlices ? 256 / a.draws : kMostSlices);
  const auto rows = static_cast<unsigned>(a.draws);
  const dim3 grid(static_cast<unsigned>(slices), rows);
  top_kernel<<<grid, kThreads, 0, stream>>>(a, states);
  if (a.has_top_p) {
    mass_kernel<<<grid, kThreads, 0, stream>>>(a, states);
    cut_kernel<<<rows, kThreads, 0, stream>>>(a, states);
    gather_kernel<<<grid, kThreads, 0, stream>>>(a, states);
    sort_kernel<<<rows, kThreads, 0, stream>>>(a, states, slices);
  }
  score_kernel<<<grid, kThreads, 0, stream>>>(a, states);
  choose_kernel<<<rows, 32, 0, stream>>>(a, states, slices);
}

}  // namespace pmetal::cuda
