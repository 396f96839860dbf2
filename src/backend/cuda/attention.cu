// attention forward on the tensor cores (bf16, head sizes up to 128): online softmax over key tiles of 64 (Dao et al.
// 2022), mma.sync m16n8k16. Two shapes of one kernel:
//   prefill  a block has 4 warps, each 16 · kM packed query rows, all keys of a tile
//   decode   at most 16 packed rows; the 4 warps share a key tile, 16 keys each, and the keys of a sequence are cut
//            among blocks; partial results are merged by their log-sum-exp, in a fixed order
// Tiles of keys and values are double-buffered with cp.async. Where few rows wait for memory (decode, kM = 1), weights
// meet the values as two bf16 numbers: nothing is lost to their rounding. Reference: attention_plain.cu.
//
//            keys ->   64       64
//   rows |  [ Q  ]  x [ Kᵀ ] -> S -> P = exp2(S − m)   P x [ V ] -> O  (registers)
#include "backend/cuda/attention.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kDecodeRows = 16;

template <int kD, int kM, bool kDecode>
struct Shape {
  static constexpr int kRows = kDecode ? kDecodeRows : 64 * kM;  // packed rows of a block
  static constexpr int kN = kDecode ? 2 : 8;                     // groups of eight keys of a warp
  static constexpr int kTileBytes = kKeyTile * kD * 2;
  static constexpr int kSharedBytes = kRows * kD * 2 + 4 * kTileBytes;
};

// what a thread holds of 16 rows: two rows, a quarter of their columns
template <int kD>
struct State {
  float out[kD / 8][4];
  float max[2], sum[2];
};

template <int kD, int kM, bool kDecode>
__global__ void __launch_bounds__(kThreads) attention_kernel(AttentionLaunch a) {
  using S = Shape<kD, kM, kDecode>;
  extern __shared__ __align__(128) unsigned char shared[];
  const Sequence seq(a, blockIdx.z);
  const int head = blockIdx.y, group = a.group, n_packed = seq.rows * group;
  const int tile = kDecode ? 0 : gridDim.x - 1 - blockIdx.x;  // the longest rows of a causal mask first
  const int first = tile * S::kRows, split = kDecode ? blockIdx.x : 0;
  if (first >= n_packed) return;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t q_tile = shared_address(shared), kv_tiles = q_tile + S::kRows * kD * 2;
  const auto k_tile = [&](int stage) { return kv_tiles + stage * 2 * S::kTileBytes; };
  const auto v_tile = [&](int stage) { return kv_tiles + stage * 2 * S::kTileBytes + S::kTileBytes; };

  // key tiles that any row of the block sees
  const int last = min(first + S::kRows, n_packed) - 1;
  int begin_tile = visible(a, seq.query_of(first / group), seq.keys).begin / kKeyTile;
  int end_tile = (visible(a, seq.query_of(last / group), seq.keys).end + kKeyTile - 1) / kKeyTile;
  if constexpr (kDecode) {
    const int per_split = (end_tile - begin_tile + a.splits - 1) / a.splits;
    begin_tile += split * per_split;
    end_tile = min(end_tile, begin_tile + per_split);
  }

  load_packed<kD, S::kRows, kThreads>(a.q, q_tile, seq.first_row, head, group, first, n_packed);
  const auto fetch = [&](int t, int stage) {
    load_keys<kD, kThreads>(a, a.k, k_tile(stage), seq.index, head, t * kKeyTile, seq.keys);
    load_keys<kD, kThreads>(a, a.v, v_tile(stage), seq.index, head, t * kKeyTile, seq.keys);
  };
  if (begin_tile < end_tile) fetch(begin_tile, 0);
  commit();

  State<kD> state[kM];
  KeyRange seen[kM][2];
  int common_begin = 0, common_end = 1 << 30;  // keys that all rows of the warp see
  const int warp_row = kDecode ? 0 : warp * 16 * kM;
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int p = first + warp_row + m * 16 + lane / 4 + h * 8;
      seen[m][h] = p < n_packed ? visible(a, seq.query_of(p / group), seq.keys) : KeyRange{0, 1 << 30};
      common_begin = max(common_begin, seen[m][h].begin);
      common_end = min(common_end, seen[m][h].end);
      state[m].max[h] = -INFINITY;
      state[m].sum[h] = 0;
    }
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    common_begin = max(common_begin, __shfl_xor_sync(0xffffffffu, common_begin, lanes));
    common_end = min(common_end, __shfl_xor_sync(0xffffffffu, common_end, lanes));
  }
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int d = 0; d < kD / 8; ++d)
#pragma unroll
      for (int i = 0; i < 4; ++i) state[m].out[d][i] = 0;

  const float scale2 = a.scale * kLog2e;
  const int key_of_warp = kDecode ? warp * 16 : 0;
  for (int t = begin_tile; t < end_tile; ++t) {
    const int stage = (t - begin_tile) & 1;
    if (t + 1 < end_tile) fetch(t + 1, stage ^ 1);
    commit();
    wait<1>();
    __syncthreads();
    const int base = t * kKeyTile + key_of_warp;
    const bool whole = base >= common_begin && base + S::kN * 8 <= common_end;
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      float s[S::kN][4];
      product<kD, S::kN>(s, q_tile, warp_row + m * 16, k_tile(stage), key_of_warp);
      if (a.softcap > 0) {
#pragma unroll
        for (int n = 0; n < S::kN; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) s[n][i] = a.softcap * kLog2e * tanhf(s[n][i] * a.scale / a.softcap);
      } else {
#pragma unroll
        for (int n = 0; n < S::kN; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) s[n][i] *= scale2;
      }
      if (!whole) {
#pragma unroll
        for (int n = 0; n < S::kN; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int key = base + n * 8 + lane % 4 * 2 + i % 2;
            if (key < seen[m][i / 2].begin || key >= seen[m][i / 2].end || key >= seq.keys) s[n][i] = -INFINITY;
          }
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float top = state[m].max[h];
#pragma unroll
        for (int n = 0; n < S::kN; ++n) top = fmaxf(top, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        const float shift = top == -INFINITY ? 0.f : top, factor = exp2f(state[m].max[h] - shift);
        float added = 0;
#pragma unroll
        for (int n = 0; n < S::kN; ++n)
#pragma unroll
          for (int i = 2 * h; i < 2 * h + 2; ++i) {
            s[n][i] = exp2f(s[n][i] - shift);
            added += s[n][i];
          }
        state[m].sum[h] = state[m].sum[h] * factor + added;
        state[m].max[h] = top;
#pragma unroll
        for (int d = 0; d < kD / 8; ++d) {
          state[m].out[d][2 * h] *= factor;
          state[m].out[d][2 * h + 1] *= factor;
        }
      }
      product_add<kD, S::kN, kM == 1>(state[m].out, s, v_tile(stage), key_of_warp);
    }
    __syncthreads();
  }
  wait<0>();

#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      state[m].sum[h] += __shfl_xor_sync(0xffffffffu, state[m].sum[h], 1);
      state[m].sum[h] += __shfl_xor_sync(0xffffffffu, state[m].sum[h], 2);
    }

  const int d_v = static_cast<int>(a.out.shape[2]);
  if constexpr (kDecode) {
    // merge the four warps: out rows as f32 [4][16][kD], then max and sum [4][16]
    __syncthreads();
    float* outs = reinterpret_cast<float*>(shared);
    float* stats = outs + 4 * kDecodeRows * kD;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = lane / 4 + h * 8;
#pragma unroll
      for (int d = 0; d < kD / 8; ++d)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          outs[(warp * kDecodeRows + r) * kD + d * 8 + lane % 4 * 2 + i] = state[0].out[d][2 * h + i];
      if (lane % 4 == 0) {
        stats[warp * kDecodeRows + r] = state[0].max[h];
        stats[64 + warp * kDecodeRows + r] = state[0].sum[h];
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n_packed * d_v; i += kThreads) {
      const int r = i / d_v, c = i % d_v;
      float top = -INFINITY;
      for (int w = 0; w < 4; ++w) top = fmaxf(top, stats[w * kDecodeRows + r]);
      const float shift = top == -INFINITY ? 0.f : top;
      float sum = 0, out = 0;
      for (int w = 0; w < 4; ++w) {
        const float factor = exp2f(stats[w * kDecodeRows + r] - shift);
        sum += stats[64 + w * kDecodeRows + r] * factor;
        out += outs[(w * kDecodeRows + r) * kD + c] * factor;
      }
      const int64_t slot = ((int64_t{blockIdx.z} * gridDim.y + head) * a.splits + split) * kDecodeRows + r;
      a.partial[slot * (d_v + 2) + c] = out;
      if (c == 0) {
        a.partial[slot * (d_v + 2) + d_v] = top;
        a.partial[slot * (d_v + 2) + d_v + 1] = sum;
      }
    }
  } else {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int p = first + warp_row + m * 16 + lane / 4 + h * 8;
        if (p >= n_packed) continue;
        const int64_t row = seq.first_row + p / group;
        const int q_head = head * group + p % group;
        float top = state[m].max[h], sum = state[m].sum[h], factor = 1;
        if (a.sinks.data) {
          const float sink = load_one<float>(a.sinks.data, a.sinks.dtype, q_head * a.sinks.strides[0]) * kLog2e;
          const float both = fmaxf(top, sink);
          factor = exp2f(top - both);
          sum = sum * factor + exp2f(sink - both);
          top = both;
        }
        const float inverse = sum == 0 ? 0.f : factor / sum;
        bf16* out = a.out.as<bf16>() + row * a.out.strides[0] + q_head * a.out.strides[1];
#pragma unroll
        for (int d = 0; d < kD / 8; ++d) {
          const int c = d * 8 + lane % 4 * 2;
          if (c < d_v)
            *reinterpret_cast<uint32_t*>(out + c) =
                pair(state[m].out[d][2 * h] * inverse, state[m].out[d][2 * h + 1] * inverse);
        }
        if (a.lse.data && lane % 4 == 0)
          a.lse.as<float>()[row * a.lse.strides[0] + q_head * a.lse.strides[1]] =
              sum == 0 ? -INFINITY : top * kLn2 + logf(sum);
      }
  }
}

// merges the splits of a decode step in order; a block per packed row
__global__ void merge_kernel(AttentionLaunch a, int kv_heads) {
  const int s = blockIdx.z, head = blockIdx.y, r = blockIdx.x;
  const Sequence seq(a, s);
  if (r >= seq.rows * a.group) return;
  const int d_v = static_cast<int>(a.out.shape[2]);
  const int64_t row = seq.first_row + r / a.group;
  const int q_head = head * a.group + r % a.group;
  const float* partial = a.partial + ((int64_t{s} * kv_heads + head) * a.splits * kDecodeRows + r) * (d_v + 2);
  const int64_t step = int64_t{kDecodeRows} * (d_v + 2);
  float top = -INFINITY, sum = 0;
  for (int i = 0; i < a.splits; ++i) top = fmaxf(top, partial[i * step + d_v]);
  float sink = 0;
  if (a.sinks.data) {
    sink = load_one<float>(a.sinks.data, a.sinks.dtype, q_head * a.sinks.strides[0]) * kLog2e;
    top = fmaxf(top, sink);
  }
  const float shift = top == -INFINITY ? 0.f : top;
  for (int i = 0; i < a.splits; ++i) sum += partial[i * step + d_v + 1] * exp2f(partial[i * step + d_v] - shift);
  if (a.sinks.data) sum += exp2f(sink - shift);
  const float inverse = sum == 0 ? 0.f : 1.f / sum;
  for (int c = threadIdx.x; c < d_v; c += blockDim.x) {
    float out = 0;
    for (int i = 0; i < a.splits; ++i) out += partial[i * step + c] * exp2f(partial[i * step + d_v] - shift);
    a.out.as<bf16>()[row * a.out.strides[0] + q_head * a.out.strides[1] + c] = __float2bfloat16_rn(out * inverse);
  }
  if (a.lse.data && threadIdx.x == 0)
    a.lse.as<float>()[row * a.lse.strides[0] + q_head * a.lse.strides[1]] =
        sum == 0 ? -INFINITY : shift * kLn2 + logf(sum);
}

template <int kD, int kM, bool kDecode>
void run(StreamHandle stream, const AttentionLaunch& a) {
  using S = Shape<kD, kM, kDecode>;
  constexpr int kMerge = 4 * kDecodeRows * kD * 4 + 512;  // f32 rows of the decode merge
  constexpr int kBytes = kDecode && kMerge > S::kSharedBytes ? kMerge : S::kSharedBytes;
  static SharedLimit limit;
  allow_shared(limit, reinterpret_cast<const void*>(attention_kernel<kD, kM, kDecode>), kBytes);
  const unsigned heads = static_cast<unsigned>(a.q.shape[1] / a.group);
  const unsigned tiles = kDecode ? static_cast<unsigned>(a.splits) : blocks_for(int64_t{a.max_q} * a.group, S::kRows);
  attention_kernel<kD, kM, kDecode>
      <<<dim3(tiles, heads, static_cast<unsigned>(a.sequences)), kThreads, kBytes, stream>>>(a);
  if (kDecode)
    merge_kernel<<<dim3(static_cast<unsigned>(a.max_q * a.group), heads, static_cast<unsigned>(a.sequences)), 128, 0,
                   stream>>>(a, static_cast<int>(heads));
}

template <int kD>
void run_size(StreamHandle stream, const AttentionLaunch& a) {
  if (a.splits > 0)
    run<kD, 1, true>(stream, a);
  else if (int64_t{a.max_q} * a.group <= 64)
    run<kD, 1, false>(stream, a);
  else
    run<kD, 2, false>(stream, a);
}

}  // namespace

void launch_attention(StreamHandle stream, const AttentionLaunch& a) {
  const int64_t d = a.q.shape[2] > a.out.shape[2] ? a.q.shape[2] : a.out.shape[2];
  d <= 64 ? run_size<64>(stream, a) : run_size<128>(stream, a);
}

}  // namespace pmetal::cuda
