// attention of a decode step (bf16, head sizes up to 128, at most 16 packed rows of a sequence and key head): the keys
// are cut among blocks (split-KV), partial results are merged by their log-sum-exp in a fixed order. Each of a block's
// four warps walks 16 keys of every 64 on its own: it copies them to its own shared memory with cp.async, three chunks
// ahead, and no barrier stands in the loop. The queries stay in registers. Online softmax (Dao et al. 2022), mma.sync
// m16n8k16. Bound: the bytes of keys and values. Reference: attention_plain.cu.
//
// Splits: `splits` of equal size over what a sequence sees, or, with tiles_per_split, at absolute multiples of so many
// tiles of 64 keys: then the bits of a row depend on nothing but its own keys.
#include "backend/cuda/attention.cuh"
#include "backend/cuda/overlap.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kRows = 16, kChunk = 16, kStages = 3;

template <int kD>
struct Layout {
  static constexpr int kChunkBytes = kChunk * kD * 2;  // keys, then as much for values
  static constexpr int kStageBytes = 2 * kChunkBytes;
  static constexpr int kQueryBytes = kRows * kD * 2;
  static constexpr int kRingBytes = kWarps * kStages * kStageBytes;
  static constexpr int kMergeBytes = kWarps * kRows * (kD + 2) * 4;
  static constexpr int kBytes = kQueryBytes + (kRingBytes > kMergeBytes ? kRingBytes : kMergeBytes);
};

struct Piece {
  float top, sum, out;  // of one column: largest score · log2(e), Σ 2^(score − top), Σ 2^(score − top) · value
};
// the row's result from what all keys gave
__device__ __forceinline__ void finish(const AttentionLaunch& a, int64_t row, int q_head, int column, Piece p) {
  if (a.sinks.data) {
    const float sink = load_one<float>(a.sinks.data, a.sinks.dtype, q_head * a.sinks.strides[0]) * kLog2e;
    const float both = fmaxf(p.top, sink), factor = exp2f(p.top - both);
    p.out *= factor;
    p.sum = p.sum * factor + exp2f(sink - both);
    p.top = both;
  }
  const float inverse = p.sum == 0 ? 0.f : 1.f / p.sum;
  a.out.as<bf16>()[row * a.out.strides[0] + q_head * a.out.strides[1] + column] = __float2bfloat16_rn(p.out * inverse);
  if (a.lse.data && column == 0)
    a.lse.as<float>()[row * a.lse.strides[0] + q_head * a.lse.strides[1]] =
        p.sum == 0 ? -INFINITY : p.top * kLn2 + logf(p.sum);
}

template <int kD>
__global__ void __launch_bounds__(kThreads) decode_kernel(AttentionLaunch a) {
  using L = Layout<kD>;
  extern __shared__ __align__(128) unsigned char shared[];
  let_next_start();
  wait_for_inputs();
  const Sequence seq(a, blockIdx.z);
  const int head = blockIdx.y, split = blockIdx.x, n_packed = seq.rows * a.group;
  if (n_packed == 0 || n_packed > kRows) return;  // longer ones are not this kernel's
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t q_tile = shared_address(shared), ring = q_tile + L::kQueryBytes + warp * kStages * L::kStageBytes;

  // tiles of 64 keys of this split
  int begin_tile = visible(a, seq.query_of(0), seq.keys).begin / kKeyTile;
  int end_tile = (visible(a, seq.query_of(seq.rows - 1), seq.keys).end + kKeyTile - 1) / kKeyTile;
  if (a.tiles_per_split > 0) {
    begin_tile = max(begin_tile, split * a.tiles_per_split);
    end_tile = min(end_tile, (split + 1) * a.tiles_per_split);
  } else {
    const int per_split = (end_tile - begin_tile + a.splits - 1) / a.splits;
    begin_tile += split * per_split;
    end_tile = min(end_tile, begin_tile + per_split);
  }
  const int d_v = static_cast<int>(a.out.shape[2]);
  float* const slots = a.partial + ((int64_t{blockIdx.z} * gridDim.y + head) * a.splits + split) * kRows * (d_v + 2);
  if (begin_tile >= end_tile) {  // nothing to see: the merge passes over it
    if (a.splits > 1) {
      if (threadIdx.x < n_packed) slots[threadIdx.x * (d_v + 2) + d_v] = -INFINITY;
    } else {
      for (int i = threadIdx.x; i < n_packed * d_v; i += kThreads) {
        const int r = i / d_v;
        finish(a, seq.first_row + r / a.group, head * a.group + r % a.group, i % d_v, {-INFINITY, 0, 0});
      }
    }
    return;
  }

  load_packed<kD, kRows, kThreads>(a.q, q_tile, seq.first_row, head, a.group, 0, n_packed);
  commit();

  // chunks of this warp
  const int first = begin_tile * (kKeyTile / kChunk) + warp;
  const int end = min(end_tile * (kKeyTile / kChunk), (seq.keys + kChunk - 1) / kChunk);
  int next = first, next_stage = 0;
  const int k_chunks = static_cast<int>(a.k.shape[a.k.rank - 1]) / 8, v_chunks = d_v / 8;
  const int64_t k_step = a.k.strides[a.k.rank - 2], v_step = a.v.strides[a.v.rank - 2];
  const bool paged = a.page_table.data != nullptr;
  const auto fetch = [&] {
    if (next < end) {
      const int key = next * kChunk;
      const int64_t k_at = key_offset(a, a.k, seq.index, head, key), v_at = key_offset(a, a.v, seq.index, head, key);
      const uint32_t k_tile = ring + next_stage * L::kStageBytes, v_tile = k_tile + L::kChunkBytes;
#pragma unroll
      for (int i = 0; i < kChunk * kD / 8 / 32; ++i) {
        const int at = i * 32 + lane, r = at / (kD / 8), c = at % (kD / 8);
        const bool exists = key + r < seq.keys;
        copy_async(tile_address<kD>(k_tile, r, c),
                   a.k.as<bf16>() + (exists && c < k_chunks ? k_at + r * (paged ? k_step : a.k.strides[0]) + c * 8 : 0),
                   exists && c < k_chunks);
        copy_async(tile_address<kD>(v_tile, r, c),
                   a.v.as<bf16>() + (exists && c < v_chunks ? v_at + r * (paged ? v_step : a.v.strides[0]) + c * 8 : 0),
                   exists && c < v_chunks);
      }
      next += kWarps;
      next_stage = next_stage + 1 == kStages ? 0 : next_stage + 1;
    }
    commit();
  };
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) fetch();
  wait<kStages - 1>();  // the queries
  __syncthreads();
  uint32_t q[kD / 16][4];
#pragma unroll
  for (int k = 0; k < kD / 16; ++k) load_matrices(q[k], a_address<kD>(q_tile, 0, k));

  // rows r and r + 8 of this lane
  KeyRange seen[2];
  int common_begin = 0, common_end = 1 << 30;  // keys that all rows see
  float out[kD / 8][4], top[2], sum[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = lane / 4 + h * 8;
    seen[h] = r < n_packed ? visible(a, seq.query_of(r / a.group), seq.keys) : KeyRange{0, 1 << 30};
    common_begin = max(common_begin, seen[h].begin);
    common_end = min(common_end, seen[h].end);
    top[h] = -INFINITY;
    sum[h] = 0;
  }
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    common_begin = max(common_begin, __shfl_xor_sync(0xffffffffu, common_begin, lanes));
    common_end = min(common_end, __shfl_xor_sync(0xffffffffu, common_end, lanes));
  }
#pragma unroll
  for (int d = 0; d < kD / 8; ++d)
#pragma unroll
    for (int i = 0; i < 4; ++i) out[d][i] = 0;

  const float scale2 = a.scale * kLog2e;
  int stage = 0;
  for (int chunk = first; chunk < end; chunk += kWarps) {
    wait<kStages - 2>();
    __syncwarp();  // all lanes' copies are there, and all have read the stage that is fetched into next
    fetch();
    const uint32_t k_tile = ring + stage * L::kStageBytes, v_tile = k_tile + L::kChunkBytes;
    stage = stage + 1 == kStages ? 0 : stage + 1;
    float s[2][4] = {};
#pragma unroll
    for (int k = 0; k < kD / 16; ++k) {
      uint32_t b[4];
      load_matrices(b, b_address<kD>(k_tile, 0, k));
      multiply_add(s[0], q[k], b[0], b[1]);
      multiply_add(s[1], q[k], b[2], b[3]);
    }
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        s[n][i] = a.softcap > 0 ? a.softcap * kLog2e * tanhf(s[n][i] * a.scale / a.softcap) : s[n][i] * scale2;
    const int base = chunk * kChunk;
    if (base < common_begin || base + kChunk > common_end) {
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int key = base + n * 8 + lane % 4 * 2 + i % 2;
          if (key < seen[i / 2].begin || key >= seen[i / 2].end || key >= seq.keys) s[n][i] = -INFINITY;
        }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float peak = fmaxf(fmaxf(top[h], fmaxf(s[0][2 * h], s[0][2 * h + 1])), fmaxf(s[1][2 * h], s[1][2 * h + 1]));
      peak = fmaxf(peak, __shfl_xor_sync(0xffffffffu, peak, 1));
      peak = fmaxf(peak, __shfl_xor_sync(0xffffffffu, peak, 2));
      const float shift = peak == -INFINITY ? 0.f : peak, factor = exp2f(top[h] - shift);
      float added = 0;
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; ++i) {
          s[n][i] = exp2f(s[n][i] - shift);
          added += s[n][i];
        }
      sum[h] = sum[h] * factor + added;
      top[h] = peak;
#pragma unroll
      for (int d = 0; d < kD / 8; ++d) {
        out[d][2 * h] *= factor;
        out[d][2 * h + 1] *= factor;
      }
    }
    product_add<kD, 2, true>(out, s, v_tile, 0);
  }
  wait<0>();

  // the four warps' parts, in order: f32 rows [kWarps][kRows][kD], tops, sums
  __syncthreads();
  float* outs = reinterpret_cast<float*>(shared + L::kQueryBytes);
  float *tops = outs + kWarps * kRows * kD, *sums = tops + kWarps * kRows;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 1);
    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 2);
    const int r = lane / 4 + h * 8;
    if (r >= n_packed) continue;
#pragma unroll
    for (int d = 0; d < kD / 8; ++d)
      *reinterpret_cast<float2*>(outs + (warp * kRows + r) * kD + d * 8 + lane % 4 * 2) =
          make_float2(out[d][2 * h], out[d][2 * h + 1]);
    if (lane % 4 == 0) {
      tops[warp * kRows + r] = top[h];
      sums[warp * kRows + r] = sum[h];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < n_packed * d_v; i += kThreads) {
    const int r = i / d_v, c = i % d_v;
    Piece p{-INFINITY, 0, 0};
#pragma unroll
    for (int w = 0; w < kWarps; ++w) p.top = fmaxf(p.top, tops[w * kRows + r]);
    const float shift = p.top == -INFINITY ? 0.f : p.top;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float factor = exp2f(tops[w * kRows + r] - shift);
      p.sum += sums[w * kRows + r] * factor;
      p.out += outs[(w * kRows + r) * kD + c] * factor;
    }
    if (a.splits == 1) {
      finish(a, seq.first_row + r / a.group, head * a.group + r % a.group, c, p);
      continue;
    }
    slots[r * (d_v + 2) + c] = p.out;
    if (c == 0) {
      slots[r * (d_v + 2) + d_v] = p.top;
      slots[r * (d_v + 2) + d_v + 1] = p.sum;
    }
  }
}

// merges the splits of a packed row in order; a block per row
__global__ void __launch_bounds__(kThreads) merge_kernel(AttentionLaunch a) {
  extern __shared__ float weights[];  // [splits]
  let_next_start();
  wait_for_inputs();
  const int head = blockIdx.y, r = blockIdx.x;
  const Sequence seq(a, blockIdx.z);
  if (seq.rows * a.group > kRows || r >= seq.rows * a.group) return;
  const int d_v = static_cast<int>(a.out.shape[2]);
  const float* partial = a.partial + ((int64_t{blockIdx.z} * gridDim.y + head) * a.splits * kRows + r) * (d_v + 2);
  const int64_t step = int64_t{kRows} * (d_v + 2);
  Piece p{-INFINITY, 0, 0};
  for (int i = threadIdx.x; i < a.splits; i += kThreads) {
    weights[i] = partial[i * step + d_v];
    p.top = fmaxf(p.top, weights[i]);
  }
  p.top = block_max(p.top);
  const float shift = p.top == -INFINITY ? 0.f : p.top;
  for (int i = threadIdx.x; i < a.splits; i += kThreads) {
    const float factor = exp2f(weights[i] - shift);
    if (factor > 0) p.sum += partial[i * step + d_v + 1] * factor;
    weights[i] = factor;
  }
  p.sum = block_sum(p.sum);  // a barrier: all weights are there
  const int64_t row = seq.first_row + r / a.group;
  for (int c = threadIdx.x; c < d_v; c += kThreads) {
    p.out = 0;
#pragma unroll 8
    for (int i = 0; i < a.splits; ++i)
      if (weights[i] > 0) p.out += partial[i * step + c] * weights[i];
    finish(a, row, head * a.group + r % a.group, c, p);
  }
}

template <int kD>
void run(StreamHandle stream, const AttentionLaunch& a) {
  static SharedLimit limit;
  allow_shared(limit, reinterpret_cast<const void*>(decode_kernel<kD>), Layout<kD>::kBytes);
  const auto heads = static_cast<unsigned>(a.q.shape[1] / a.group), sequences = static_cast<unsigned>(a.sequences);
  launch_overlapped(stream, decode_kernel<kD>, dim3(static_cast<unsigned>(a.splits), heads, sequences), dim3(kThreads),
                    Layout<kD>::kBytes, a);
  if (a.splits == 1) return;
  const int64_t packed = a.max_q * a.group;
  launch_overlapped(stream, merge_kernel,
                    dim3(static_cast<unsigned>(packed < kRows ? packed : kRows), heads, sequences), dim3(kThreads),
                    static_cast<size_t>(a.splits) * 4, a);
}

}  // namespace

void launch_attention_decode(StreamHandle stream, const AttentionLaunch& a) {
  const int64_t d = a.q.shape[2] > a.out.shape[2] ? a.q.shape[2] : a.out.shape[2];
  d <= 64 ? run<64>(stream, a) : run<128>(stream, a);
}

}  // namespace pmetal::cuda
