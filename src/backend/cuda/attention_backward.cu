// attention backward on the tensor cores (bf16, head sizes up to 128), memory O(T), no atomics: same bits always. With
// P = exp(S − lse), D = Σ out · dout:
//   dV = Pᵀ dO,   dS = P · (dO Vᵀ − D) (· (1 − (s / cap)²)),   dQ = scale · dS K,   dK = scale · dSᵀ Q
// Two kernels, each computing S and dP again: one walks the keys of 64 packed query rows (dQ), one walks the packed
// query rows, 32 at a time and all heads of the group, of 64 keys (dK, dV; S is kept transposed, rows are keys).
// Seven products for the five of a version with atomics. Reference: attention_plain.cu.
#include "backend/cuda/attention.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kQueryRows = 64;  // packed rows of a dQ block
constexpr int kStepRows = 32;   // packed rows that a dK, dV block takes at a time

__device__ __forceinline__ float probability(const AttentionLaunch& a, float dotted, float lse2, float& slope) {
  slope = 1;
  if (a.softcap > 0) {
    const float t = tanhf(dotted * a.scale / a.softcap);
    slope = 1 - t * t;
    return exp2f(a.softcap * kLog2e * t - lse2);
  }
  return exp2f(dotted * a.scale * kLog2e - lse2);
}

template <int kD>
__global__ void __launch_bounds__(kThreads) queries_kernel(AttentionLaunch a) {
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr int kTile = kKeyTile * kD * 2;
  const Sequence seq(a, blockIdx.z);
  const int head = blockIdx.y, group = a.group, n_packed = seq.rows * group;
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kQueryRows;
  if (first >= n_packed) return;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t q_tile = shared_address(shared), o_tile = q_tile + kQueryRows * kD * 2,
                 kv = o_tile + kQueryRows * kD * 2;
  const int last = min(first + kQueryRows, n_packed) - 1;
  const int begin_tile = visible(a, seq.query_of(first / group), seq.keys).begin / kKeyTile;
  const int end_tile = (visible(a, seq.query_of(last / group), seq.keys).end + kKeyTile - 1) / kKeyTile;
  load_packed<kD, kQueryRows, kThreads>(a.q, q_tile, seq.first_row, head, group, first, n_packed);
  load_packed<kD, kQueryRows, kThreads>(a.dout, o_tile, seq.first_row, head, group, first, n_packed);
  const auto fetch = [&](int t, int stage) {
    load_keys<kD, kThreads>(a, a.k, kv + stage * 2 * kTile, seq.index, head, t * kKeyTile, seq.keys);
    load_keys<kD, kThreads>(a, a.v, kv + stage * 2 * kTile + kTile, seq.index, head, t * kKeyTile, seq.keys);
  };
  if (begin_tile < end_tile) fetch(begin_tile, 0);
  commit();

  KeyRange seen[2];
  float lse2[2], delta[2];
  int64_t row[2];
  int q_head[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int p = first + warp * 16 + lane / 4 + h * 8;
    const bool exists = p < n_packed;
    row[h] = exists ? seq.first_row + p / group : -1;
    q_head[h] = head * group + p % group;
    seen[h] = exists ? visible(a, seq.query_of(p / group), seq.keys) : KeyRange{0, 0};
    const float lse = exists ? a.lse.as<float>()[row[h] * a.lse.strides[0] + q_head[h] * a.lse.strides[1]] : 0.f;
    lse2[h] = lse == -INFINITY ? INFINITY : lse * kLog2e;
    delta[h] = exists ? a.delta[row[h] * a.q.shape[1] + q_head[h]] : 0.f;
  }
  float dq[kD / 8][4];
#pragma unroll
  for (int d = 0; d < kD / 8; ++d)
#pragma unroll
    for (int i = 0; i < 4; ++i) dq[d][i] = 0;

  for (int t = begin_tile; t < end_tile; ++t) {
    const int stage = (t - begin_tile) & 1;
    if (t + 1 < end_tile) fetch(t + 1, stage ^ 1);
    commit();
    wait<1>();
    __syncthreads();
    const uint32_t k_tile = kv + stage * 2 * kTile, v_tile = k_tile + kTile;
    float s[8][4], dp[8][4];
    product<kD, 8>(s, q_tile, warp * 16, k_tile, 0);
    product<kD, 8>(dp, o_tile, warp * 16, v_tile, 0);
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = t * kKeyTile + n * 8 + lane % 4 * 2 + i % 2;
        float slope;
        const float p = probability(a, s[n][i], lse2[i / 2], slope);
        const bool hit = key >= seen[i / 2].begin && key < seen[i / 2].end;
        s[n][i] = hit ? p * (dp[n][i] - delta[i / 2]) * slope : 0.f;
      }
    product_add<kD, 8>(dq, s, k_tile, 0);
    __syncthreads();
  }
  wait<0>();
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (row[h] < 0) continue;
    bf16* to = a.dq.as<bf16>() + row[h] * a.dq.strides[0] + q_head[h] * a.dq.strides[1];
#pragma unroll
    for (int d = 0; d < kD / 8; ++d) {
      const int c = d * 8 + lane % 4 * 2;
      if (c < a.q.shape[2])
        *reinterpret_cast<uint32_t*>(to + c) = pair(dq[d][2 * h] * a.scale, dq[d][2 * h + 1] * a.scale);
    }
  }
}

template <int kD>
__global__ void __launch_bounds__(kThreads) keys_kernel(AttentionLaunch a) {
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr int kTile = kKeyTile * kD * 2, kStep = kStepRows * kD * 2, kN = kStepRows / 8;
  __shared__ float lse2[2][kStepRows], delta[2][kStepRows];
  __shared__ int begins[2][kStepRows], ends[2][kStepRows];
  const Sequence seq(a, blockIdx.z);
  const int head = blockIdx.y, group = a.group, base = blockIdx.x * kKeyTile;
  if (base >= seq.keys) return;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t k_tile = shared_address(shared), v_tile = k_tile + kTile, steps = v_tile + kTile;

  // queries that see a key of the tile
  int low = a.causal ? base : 0, high = seq.keys;
  const int top = base + kKeyTile - 1;
  if (a.window > 0) {
    if (!a.causal) low = max(low, base - a.window + 1);
    high = min(high, top + a.window);
  }
  if (a.chunk > 0) {
    low = max(low, base / a.chunk * a.chunk);
    high = min(high, (top / a.chunk + 1) * a.chunk);
  }
  const int query0 = seq.query_of(0);
  const int first = max(0, low - query0) * group / kStepRows * kStepRows,
            n_packed = min(seq.rows, max(0, high - query0)) * group;

  load_keys<kD, kThreads>(a, a.k, k_tile, seq.index, head, base, seq.keys);
  load_keys<kD, kThreads>(a, a.v, v_tile, seq.index, head, base, seq.keys);
  const auto fetch = [&](int p0, int stage) {
    const uint32_t q_tile = steps + stage * 2 * kStep;
    load_packed<kD, kStepRows, kThreads>(a.q, q_tile, seq.first_row, head, group, p0, n_packed);
    load_packed<kD, kStepRows, kThreads>(a.dout, q_tile + kStep, seq.first_row, head, group, p0, n_packed);
    if (threadIdx.x < kStepRows) {
      const int p = p0 + threadIdx.x, r = threadIdx.x;
      const bool exists = p < n_packed;
      const int64_t row = seq.first_row + p / group;
      const int q_head = head * group + p % group;
      const KeyRange seen = exists ? visible(a, seq.query_of(p / group), seq.keys) : KeyRange{0, 0};
      const float lse = exists ? a.lse.as<float>()[row * a.lse.strides[0] + q_head * a.lse.strides[1]] : 0.f;
      lse2[stage][r] = lse == -INFINITY ? INFINITY : lse * kLog2e;
      delta[stage][r] = exists ? a.delta[row * a.q.shape[1] + q_head] : 0.f;
      begins[stage][r] = seen.begin;
      ends[stage][r] = seen.end;
    }
  };
  if (first < n_packed) fetch(first, 0);
  commit();

  float dk[kD / 8][4], dv[kD / 8][4];
#pragma unroll
  for (int d = 0; d < kD / 8; ++d)
#pragma unroll
    for (int i = 0; i < 4; ++i) dk[d][i] = dv[d][i] = 0;

  int stage = 0;
  for (int p0 = first; p0 < n_packed; p0 += kStepRows, stage ^= 1) {
    if (p0 + kStepRows < n_packed) fetch(p0 + kStepRows, stage ^ 1);
    commit();
    wait<1>();
    __syncthreads();
    const uint32_t q_tile = steps + stage * 2 * kStep, o_tile = q_tile + kStep;
    float s[kN][4], dp[kN][4];  // [16 keys, 32 rows]
    product<kD, kN>(s, k_tile, warp * 16, q_tile, 0);
    product<kD, kN>(dp, v_tile, warp * 16, o_tile, 0);
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = n * 8 + lane % 4 * 2 + i % 2, key = base + warp * 16 + lane / 4 + i / 2 * 8;
        float slope;
        const float p = probability(a, s[n][i], lse2[stage][r], slope);
        const bool hit = key >= begins[stage][r] && key < ends[stage][r];
        s[n][i] = hit ? p : 0.f;
        dp[n][i] = hit ? p * (dp[n][i] - delta[stage][r]) * slope : 0.f;
      }
    product_add<kD, kN>(dv, s, o_tile, 0);
    product_add<kD, kN>(dk, dp, q_tile, 0);
    __syncthreads();
  }
  wait<0>();
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int key = base + warp * 16 + lane / 4 + h * 8;
    if (key >= seq.keys) continue;
    const int64_t row = a.cu_k.as<int32_t>()[seq.index] + key;
    bf16* to_k = a.dk.as<bf16>() + row * a.dk.strides[0] + head * a.dk.strides[1];
    bf16* to_v = a.dv.as<bf16>() + row * a.dv.strides[0] + head * a.dv.strides[1];
#pragma unroll
    for (int d = 0; d < kD / 8; ++d) {
      const int c = d * 8 + lane % 4 * 2;
      if (c < a.q.shape[2])
        *reinterpret_cast<uint32_t*>(to_k + c) = pair(dk[d][2 * h] * a.scale, dk[d][2 * h + 1] * a.scale);
      if (c < a.out.shape[2]) *reinterpret_cast<uint32_t*>(to_v + c) = pair(dv[d][2 * h], dv[d][2 * h + 1]);
    }
  }
}

template <int kD>
void run(StreamHandle stream, const AttentionLaunch& a) {
  constexpr int kQueryBytes = 2 * kQueryRows * kD * 2 + 4 * kKeyTile * kD * 2;
  constexpr int kKeyBytes = 2 * kKeyTile * kD * 2 + 4 * kStepRows * kD * 2;
  static SharedLimit limit_queries, limit_keys;
  allow_shared(limit_queries, reinterpret_cast<const void*>(queries_kernel<kD>), kQueryBytes);
  allow_shared(limit_keys, reinterpret_cast<const void*>(keys_kernel<kD>), kKeyBytes);
  const unsigned heads = static_cast<unsigned>(a.k.shape[1]), sequences = static_cast<unsigned>(a.sequences);
  queries_kernel<kD>
      <<<dim3(blocks_for(int64_t{a.max_q} * a.group, kQueryRows), heads, sequences), kThreads, kQueryBytes, stream>>>(
          a);
  keys_kernel<kD><<<dim3(blocks_for(a.max_kv, kKeyTile), heads, sequences), kThreads, kKeyBytes, stream>>>(a);
}

}  // namespace

void launch_attention_backward(StreamHandle stream, const AttentionLaunch& a) {
  const int64_t d = a.q.shape[2] > a.out.shape[2] ? a.q.shape[2] : a.out.shape[2];
  d <= 64 ? run<64>(stream, a) : run<128>(stream, a);
}

}  // namespace pmetal::cuda
