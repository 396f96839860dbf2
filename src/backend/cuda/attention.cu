// attention forward on the tensor cores (bf16, head sizes up to 128): online softmax over key tiles of 64 (Dao et al.
// 2022), mma.sync m16n8k16. A block has 4 warps, each 16 · kM packed query rows, all keys of a tile; decode steps have
// a kernel of their own (attention_decode.cu). Tiles of keys and values are double-buffered with cp.async. Where few
// rows wait for memory (kM = 1), weights meet the values as two bf16 numbers: nothing is lost to their rounding.
// Reference: attention_plain.cu.
//
//            keys ->   64       64
//   rows |  [ Q  ]  x [ Kᵀ ] -> S -> P = exp2(S − m)   P x [ V ] -> O  (registers)
#include "backend/cuda/attention.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 128;

template <int kD, int kM>
struct Shape {
  static constexpr int kRows = 64 * kM;  // packed rows of a block
  static constexpr int kN = 8;           // groups of eight keys of a tile
  static constexpr int kTileBytes = kKeyTile * kD * 2;
  static constexpr int kSharedBytes = kRows * kD * 2 + 4 * kTileBytes;
};

// what a thread holds of 16 rows: two rows, a quarter of their columns
template <int kD>
struct State {
  float out[kD / 8][4];
  float max[2], sum[2];
};

template <int kD, int kM>
__global__ void __launch_bounds__(kThreads) attention_kernel(AttentionLaunch a) {
  using S = Shape<kD, kM>;
  extern __shared__ __align__(128) unsigned char shared[];
  const Sequence seq(a, blockIdx.z);
  const int head = blockIdx.y, group = a.group, n_packed = seq.rows * group;
  const int tile = gridDim.x - 1 - blockIdx.x;  // the longest rows of a causal mask first
  const int first = tile * S::kRows;
  if (first >= n_packed) return;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t q_tile = shared_address(shared), kv_tiles = q_tile + S::kRows * kD * 2;
  const auto k_tile = [&](int stage) { return kv_tiles + stage * 2 * S::kTileBytes; };
  const auto v_tile = [&](int stage) { return kv_tiles + stage * 2 * S::kTileBytes + S::kTileBytes; };

  // key tiles that any row of the block sees
  const int last = min(first + S::kRows, n_packed) - 1;
  const int begin_tile = visible(a, seq.query_of(first / group), seq.keys).begin / kKeyTile;
  const int end_tile = (visible(a, seq.query_of(last / group), seq.keys).end + kKeyTile - 1) / kKeyTile;

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
  const int warp_row = warp * 16 * kM;
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
  for (int t = begin_tile; t < end_tile; ++t) {
    const int stage = (t - begin_tile) & 1;
    if (t + 1 < end_tile) fetch(t + 1, stage ^ 1);
    commit();
    wait<1>();
    __syncthreads();
    const int base = t * kKeyTile;
    const bool whole = base >= common_begin && base + S::kN * 8 <= common_end;
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      float s[S::kN][4];
      product<kD, S::kN>(s, q_tile, warp_row + m * 16, k_tile(stage), 0);
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
      product_add<kD, S::kN, kM == 1>(state[m].out, s, v_tile(stage), 0);
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

template <int kD, int kM>
void run(StreamHandle stream, const AttentionLaunch& a) {
  using S = Shape<kD, kM>;
  static SharedLimit limit;
  allow_shared(limit, reinterpret_cast<const void*>(attention_kernel<kD, kM>), S::kSharedBytes);
  const unsigned heads = static_cast<unsigned>(a.q.shape[1] / a.group);
  attention_kernel<kD, kM>
      <<<dim3(blocks_for(int64_t{a.max_q} * a.group, S::kRows), heads, static_cast<unsigned>(a.sequences)), kThreads,
         S::kSharedBytes, stream>>>(a);
}

template <int kD>
void run_size(StreamHandle stream, const AttentionLaunch& a) {
  if (int64_t{a.max_q} * a.group <= 64)
    run<kD, 1>(stream, a);
  else
    run<kD, 2>(stream, a);
}

}  // namespace

void launch_attention(StreamHandle stream, const AttentionLaunch& a) {
  const int64_t d = a.q.shape[2] > a.out.shape[2] ? a.q.shape[2] : a.out.shape[2];
  d <= 64 ? run_size<64>(stream, a) : run_size<128>(stream, a);
}

}  // namespace pmetal::cuda
