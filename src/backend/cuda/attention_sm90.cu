// attention forward on wgmma (sm_90a; bf16, head sizes up to 128, more than 64 packed rows a sequence): a block has two
// warpgroups of 64 packed query rows each and walks the keys, 128 at a time, with online softmax (Dao et al. 2022; the
// order of products as in FlashAttention-3): while the scores of a tile become weights, the product of the last tile's
// weights and values runs on. K and V are double-buffered with cp.async, one step ahead. Reference: attention_plain.cu.
//
//            keys ->   128         128
//   rows |  [ Q  ]  x [ Kᵀ ] -> S -> P = exp2(S − m)   P x [ V ] -> O  (registers)
#include "backend/cuda/attention_sm90.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kKeys = 128;  // of a step
constexpr int kBlockRows = 2 * kWarpgroupRows;

template <int kD>
struct Bytes {
  static constexpr int kQuery = kBlockRows * kD * 2, kTile = kKeys * kD * 2, kAll = kQuery + 4 * kTile + 1024;
};

template <int kD, bool kCapped>
__global__ void __launch_bounds__(kBlockThreads, 1) attention_kernel(AttentionLaunch a, int tiles) {
#if PMETAL_WGMMA
  extern __shared__ unsigned char raw[];
  constexpr int kTile = Bytes<kD>::kTile, kQueryTile = kWarpgroupRows * kD * 2;
  const uint32_t q_tiles = (shared_address(raw) + 1023) & ~1023u, k_tiles = q_tiles + 2 * kQueryTile,
                 v_tiles = k_tiles + 2 * kTile;
  const Work work(blockIdx.x, tiles, static_cast<int>(a.q.shape[1]) / a.group, a.sequences);
  const Sequence seq(a, work.sequence);
  const int head = work.head, n_packed = seq.rows * a.group;
  const int first = (tiles - 1 - work.tile) * kBlockRows;
  if (first >= n_packed) return;
  const GroupDivider divider(a.group);
  const int warpgroup = threadIdx.x / 128, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;

  const int last = min(first + kBlockRows, n_packed) - 1;
  const int begin = visible(a, seq.query_of(divider.query(first)), seq.keys).begin / kKeys;
  const int end = (visible(a, seq.query_of(divider.query(last)), seq.keys).end + kKeys - 1) / kKeys;

  // step t needs the keys of tile t + 1 and the values of tile t
  const auto fetch_keys = [&](int t) {
    if (t < end) load_key_rows<kD, kKeys>(a, a.k, k_tiles + (t & 1) * kTile, seq.index, head, t * kKeys, seq.keys);
  };
  const auto fetch_values = [&](int t) {
    if (t < end) load_key_rows<kD, kKeys>(a, a.v, v_tiles + (t & 1) * kTile, seq.index, head, t * kKeys, seq.keys);
  };
#pragma unroll
  for (int half = 0; half < 2; ++half)
    load_packed_rows<kD, kWarpgroupRows>(a.q, q_tiles + half * kQueryTile, seq.first_row, head, divider,
                                         first + half * kWarpgroupRows, n_packed);
  fetch_keys(begin);
  commit();
  fetch_keys(begin + 1);
  fetch_values(begin);
  commit();

  KeyRange seen[2];
  int packed[2], common_begin = 0, common_end = 1 << 30;  // keys that all rows of the warp see
  float top[2], sum[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int p = first + warpgroup * kWarpgroupRows + warp * 16 + lane / 4 + h * 8;
    packed[h] = p < n_packed ? p : -1;
    seen[h] = p < n_packed ? visible(a, seq.query_of(divider.query(p)), seq.keys) : KeyRange{0, seq.keys};
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

  const uint64_t q_at = descriptor(q_tiles + warpgroup * kQueryTile, kWarpgroupRows * 128);
  const float factor2 = kCapped ? 1.f : a.scale * kLog2e;  // from scores as kept here to powers of two
  float out[kD / 8][4], s[kKeys / 8][4], w[kKeys / 8][4], factor[2];
  uint32_t p[kKeys / 16][4];
  int started = 0;

  const auto multiply_scores = [&](int t) {
    const uint64_t k_at = descriptor(k_tiles + (t & 1) * kTile, kKeys * 128);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kD / 16; ++k)
      wgmma<0>(s, q_at + (column_step<kWarpgroupRows>(k) >> 4), k_at + (column_step<kKeys>(k) >> 4), k > 0);
    wgmma_commit();
  };
  const auto multiply_values = [&](int t) {
    const uint64_t v_at = descriptor(v_tiles + (t & 1) * kTile, kKeys * 128);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) wgmma<1>(out, p[k], v_at + k * (kRowStep >> 4), k > 0 || started);
    wgmma_commit();
    started = 1;
  };
  // weights from the scores of tile t; factor: what the sums so far are to be multiplied by
  const auto soften = [&](int t) {
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        w[n][i] = s[n][i];
        if constexpr (kCapped) w[n][i] = a.softcap * kLog2e * tanhf(w[n][i] * a.scale / a.softcap);
      }
    const int base = t * kKeys;
    if (base < common_begin || base + kKeys > common_end) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int key = base + n * 8 + lane % 4 * 2 + i % 2;
          if (key < seen[i / 2].begin || key >= seen[i / 2].end) w[n][i] = -INFINITY;
        }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float most = top[h];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) most = fmaxf(most, fmaxf(w[n][2 * h], w[n][2 * h + 1]));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      const float shift = most == -INFINITY ? 0.f : most * factor2;
      factor[h] = exp2_fast(fmaf(top[h], factor2, -shift));
      top[h] = most;
      float added = 0;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; ++i) {
          w[n][i] = exp2_fast(fmaf(w[n][i], factor2, -shift));
          added += w[n][i];
        }
      }
      sum[h] = sum[h] * factor[h] + added;
    }
  };

  if (begin < end) {
    wait<1>();
    fence_async_proxy();
    __syncthreads();
    multiply_scores(begin);
    wgmma_wait<0>();
    pin(s);
    soften(begin);
    to_a<kKeys / 8>(p, w);
    for (int t = begin; t + 1 < end; ++t) {
      wait<0>();
      fence_async_proxy();
      __syncthreads();  // both warpgroups are done with the keys of tile t and the values of tile t - 1
      fetch_keys(t + 2);
      fetch_values(t + 1);
      commit();
      multiply_scores(t + 1);
      multiply_values(t);
      wgmma_wait<1>();
      soften(t + 1);
      wgmma_wait<0>();
      pin(out);
#pragma unroll
      for (int d = 0; d < kD / 8; ++d)
#pragma unroll
        for (int i = 0; i < 4; ++i) out[d][i] *= factor[i / 2];
      to_a<kKeys / 8>(p, w);
    }
    wait<0>();
    fence_async_proxy();
    __syncthreads();
    multiply_values(end - 1);
    wgmma_wait<0>();
    pin(out);
  }
  wait<0>();
  const int d_v = static_cast<int>(a.out.shape[2]);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float total = sum[h], most = top[h] * factor2, rescale = 1;
    total += __shfl_xor_sync(0xffffffffu, total, 1);
    total += __shfl_xor_sync(0xffffffffu, total, 2);
    if (packed[h] < 0) continue;
    const int query = divider.query(packed[h]), q_head = head * a.group + packed[h] - query * a.group;
    const int64_t row = seq.first_row + query;
    if (a.sinks.data) {
      const float sink = load_one<float>(a.sinks.data, a.sinks.dtype, q_head * a.sinks.strides[0]) * kLog2e;
      const float both = fmaxf(most, sink);
      rescale = exp2_fast(most - both);
      total = total * rescale + exp2_fast(sink - both);
      most = both;
    }
    const float inverse = total == 0 ? 0.f : rescale / total;
    bf16* to = a.out.as<bf16>() + row * a.out.strides[0] + q_head * a.out.strides[1];
#pragma unroll
    for (int d = 0; d < kD / 8; ++d) {
      const int c = d * 8 + lane % 4 * 2;
      const uint32_t both = started ? pair(out[d][2 * h] * inverse, out[d][2 * h + 1] * inverse) : 0u;
      if (c < d_v) *reinterpret_cast<uint32_t*>(to + c) = both;
    }
    if (a.lse.data && lane % 4 == 0)
      a.lse.as<float>()[row * a.lse.strides[0] + q_head * a.lse.strides[1]] =
          total == 0 ? -INFINITY : most * kLn2 + logf(total);
  }
#endif
}

template <int kD, bool kCapped>
void run(StreamHandle stream, const AttentionLaunch& a) {
  static SharedLimit limit;
  allow_shared(limit, reinterpret_cast<const void*>(attention_kernel<kD, kCapped>), Bytes<kD>::kAll);
  const unsigned pairs = static_cast<unsigned>(a.q.shape[1] / a.group) * static_cast<unsigned>(a.sequences);
  const unsigned tiles = blocks_for(int64_t{a.max_q} * a.group, kBlockRows);
  attention_kernel<kD, kCapped><<<tiles * pairs, kBlockThreads, Bytes<kD>::kAll, stream>>>(a, static_cast<int>(tiles));
}

}  // namespace

bool has_sm90_kernels() { return true; }

void launch_attention_sm90(StreamHandle stream, const AttentionLaunch& a) {
  const int64_t d = a.q.shape[2] > a.out.shape[2] ? a.q.shape[2] : a.out.shape[2];
  if (a.softcap > 0)
    d <= 64 ? run<64, true>(stream, a) : run<128, true>(stream, a);
  else
    d <= 64 ? run<64, false>(stream, a) : run<128, false>(stream, a);
}

}  // namespace pmetal::cuda
