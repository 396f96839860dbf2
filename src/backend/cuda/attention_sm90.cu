// attention forward on wgmma (sm_90a; bf16, head sizes up to 128, more than 64 packed rows a sequence): two warpgroups
// of 64 packed query rows each walk the keys, 128 at a time, with online softmax (Dao et al. 2022); the order of the
// products is that of FlashAttention-3 (Shah et al. 2024): while the scores of a tile become weights, the product of
// the last tile's weights and values runs on, and the two warpgroups take turns, so that one's products run while the
// other softens. A third warpgroup copies (attention_sm90.cuh). Reference: attention_plain.cu.
//
//            keys ->   128         128
//   rows |  [ Q  ]  x [ Kᵀ ] -> S -> P = exp2(S − m)   P x [ V ] -> O  (registers)
#include "backend/cuda/attention_sm90.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kKeys = 128;  // of a step
constexpr int kQueryStages = 2, kKeyStages = 2;

// what the copying warpgroup says with a query tile
struct Piece {
  int first, head, first_row, rows, keys, begin, end, unused;  // rows < 0: the work is done
};

template <int kD>
struct Layout {
  static constexpr int kQueryTile = kWarpgroupRows * kD * 2, kTile = kKeys * kD * 2;
  static constexpr int kQueries = 0, kKeyTiles = kQueryStages * 2 * kQueryTile,
                       kValues = kKeyTiles + kKeyStages * kTile, kPieces = kValues + kKeyStages * kTile,
                       kBarriers = kPieces + kQueryStages * 32,
                       kNext = kBarriers + 16 * (kQueryStages + 2 * kKeyStages), kAll = kNext + Pieces::kBytes + 1024;
};
static_assert(Layout<128>::kAll <= kSharedLimit);

#if PMETAL_WGMMA
template <int kD>
__device__ __forceinline__ void copy_tiles(const AttentionLaunch& a, const TileMaps& maps, const WorkOrder& order,
                                           uint32_t shared, unsigned char* told, Ring<kQueryStages> queries,
                                           Ring<kKeyStages> keys, Ring<kKeyStages> values, uint32_t next) {
  using L = Layout<kD>;
  const int heads = static_cast<int>(a.q.shape[1]) / a.group;
  const GroupDivider divider(a.group);
  Pieces pieces(next);
  for (int index = blockIdx.x; index < order.count(); index = pieces.take()) {
    pieces.ask(order);
    const Work work(order, index, heads);
    const Sequence seq(a, work.sequence);
    const int n_packed = seq.rows * a.group, first = (order.tiles - 1 - work.tile) * kBlockRows;
    if (first >= n_packed) continue;
    const int last = min(first + kBlockRows, n_packed) - 1;
    const int begin = visible(a, seq.query_of(divider.query(first)), seq.keys).begin / kKeys;
    const int end = (visible(a, seq.query_of(divider.query(last)), seq.keys).end + kKeys - 1) / kKeys;
    const int row0 = first_key_row(a, seq.index);
    const auto copy_keys = [&](int t) {
      keys.wait_empty();
      load_key_rows<kD, kKeys>(maps.k, maps.has_keys, keys.full(), a, a.k,
                               shared + L::kKeyTiles + keys.stage * L::kTile, seq.index, row0, work.head, t * kKeys,
                               seq.keys);
      barrier_arrive_after_copies(keys.full());
      keys.advance();
    };
    queries.wait_empty();
    if (threadIdx.x % kWarpgroup == 0) {
      reinterpret_cast<Piece*>(told)[queries.stage] = {first,    work.head, seq.first_row, seq.rows,
                                                       seq.keys, begin,     end,           0};
      barrier_arrive(queries.full());
    }
#pragma unroll
    for (int half = 0; half < 2; ++half)
      load_packed_rows<kD, kWarpgroupRows>(maps.q, maps.has_rows, queries.full(), a.q,
                                           shared + L::kQueries + (queries.stage * 2 + half) * L::kQueryTile,
                                           seq.first_row, work.head, divider, first + half * kWarpgroupRows, n_packed);
    barrier_arrive_after_copies(queries.full());
    queries.advance();
    if (begin < end) copy_keys(begin);
    for (int t = begin; t < end; ++t) {
      if (t + 1 < end) copy_keys(t + 1);
      values.wait_empty();
      load_key_rows<kD, kKeys>(maps.v, maps.has_keys, values.full(), a, a.v,
                               shared + L::kValues + values.stage * L::kTile, seq.index, row0, work.head, t * kKeys,
                               seq.keys);
      barrier_arrive_after_copies(values.full());
      values.advance();
    }
  }
  queries.wait_empty();
  if (threadIdx.x % kWarpgroup == 0) {
    reinterpret_cast<Piece*>(told)[queries.stage].rows = -1;
    barrier_arrive(queries.full());
  }
  barrier_arrive_after_copies(queries.full());
  asm volatile("cp.async.wait_all;" ::: "memory");
}

// the warpgroups take turns: 0 waits for its turn, then gives it to the other
__device__ __forceinline__ void wait_turn(int warpgroup) {
  asm volatile("bar.sync %0, 256;" ::"r"(1 + warpgroup) : "memory");
}
__device__ __forceinline__ void give_turn(int warpgroup) {
  asm volatile("bar.arrive %0, 256;" ::"r"(2 - warpgroup) : "memory");
}

template <int kD, bool kCapped, bool kTurns, bool kRegisterQueries, bool kSkipRescale>
__device__ __forceinline__ void multiply_tiles(const AttentionLaunch& a, bool bulk_rows, bool bulk_keys,
                                               uint32_t shared, const unsigned char* pieces, Ring<kQueryStages> queries,
                                               Ring<kKeyStages> keys, Ring<kKeyStages> values) {
  using L = Layout<kD>;
  const int warpgroup = warpgroup_index() - 1, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const GroupDivider divider(a.group);
  const float factor2 = kCapped ? 1.f : a.scale * kLog2e;  // from scores as kept here to powers of two
  if (kTurns && warpgroup == 1) give_turn(warpgroup);
  for (;; queries.advance()) {
    queries.wait_full(true);
    const Piece piece = reinterpret_cast<const Piece*>(pieces)[queries.stage];
    if (piece.rows < 0) return;
    const int n_packed = piece.rows * a.group, begin = piece.begin, end = piece.end;
    if (!bulk_rows || piece.first + kBlockRows > n_packed) fence_async_proxy();
    const auto query_of = [&](int p) { return piece.keys - piece.rows + divider.query(p); };
    const int row0 = piece.first + warpgroup * kWarpgroupRows + warp * 16 + lane / 4;

    KeyRange seen[2];
    int common_begin = 0, common_end = 1 << 30;  // keys that all rows of the warp see
    float top[2], sum[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int p = row0 + h * 8;
      seen[h] = p < n_packed ? visible(a, query_of(p), piece.keys) : KeyRange{0, piece.keys};
      common_begin = max(common_begin, seen[h].begin);
      common_end = min(common_end, seen[h].end);
      top[h] = -INFINITY;
      sum[h] = 0;
    }
    common_begin = __reduce_max_sync(0xffffffffu, common_begin);
    common_end = __reduce_min_sync(0xffffffffu, common_end);

    float out[kD / 8][4], s[kKeys / 8][4], factor[2];
    uint32_t p[kKeys / 16][4];
    [[maybe_unused]] uint32_t q[kRegisterQueries ? kD / 16 : 1][4];
    int started = 0;
    const uint32_t q_tile = shared + L::kQueries + (queries.stage * 2 + warpgroup) * L::kQueryTile;
    const uint64_t q_at = descriptor(q_tile, kWarpgroupRows * 128);
    if constexpr (kRegisterQueries) {
      load_a<kD>(q, q_tile);
      queries.release(queries.stage);
    }

    const auto multiply_scores = [&] {
      const uint64_t k_at = descriptor(shared + L::kKeyTiles + keys.stage * L::kTile, kKeys * 128);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kD / 16; ++k) {
        if constexpr (kRegisterQueries)
          wgmma<0>(s, q[k], k_at + (column_step<kKeys>(k) >> 4), k > 0);
        else
          wgmma<0>(s, q_at + (column_step<kWarpgroupRows>(k) >> 4), k_at + (column_step<kKeys>(k) >> 4), k > 0);
      }
      wgmma_commit();
    };
    const auto multiply_values = [&] {
      const uint64_t v_at = descriptor(shared + L::kValues + values.stage * L::kTile, kKeys * 128);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kKeys / 16; ++k) wgmma<1>(out, p[k], v_at + k * (kRowStep >> 4), k > 0 || started);
      wgmma_commit();
      started = 1;
    };
    // weights from the scores of tile t, in place; factor: what the sums so far are to be multiplied by
    const auto soften = [&](int t) {
      if constexpr (kCapped) {
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) s[n][i] = a.softcap * kLog2e * tanhf(s[n][i] * a.scale / a.softcap);
      }
      const int base = t * kKeys;
      if (base < common_begin || base + kKeys > common_end) {
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int key = base + n * 8 + lane % 4 * 2 + i % 2;
            if (key < seen[i / 2].begin || key >= seen[i / 2].end) s[n][i] = -INFINITY;
          }
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float most = top[h];
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) most = fmaxf(most, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
        const float shift = most == -INFINITY ? 0.f : most * factor2;
        factor[h] = exp2_fast(fmaf(top[h], factor2, -shift));
        top[h] = most;
        float added[2] = {0, 0};
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            s[n][2 * h + i] = exp2_fast(fmaf(s[n][2 * h + i], factor2, -shift));
            added[i] += s[n][2 * h + i];
          }
        }
        sum[h] = fmaf(sum[h], factor[h], added[0] + added[1]);
      }
    };

    if (begin < end) {
      keys.wait_full(bulk_keys && begin * kKeys + kKeys <= piece.keys);
      multiply_scores();
      wgmma_wait<0>();
      pin(s);
      keys.release(keys.stage);
      keys.advance();
      soften(begin);
      to_a<kKeys / 8>(p, s);
      for (int t = begin + 1; t < end; ++t) {
        keys.wait_full(bulk_keys && t * kKeys + kKeys <= piece.keys);
        if constexpr (kTurns) wait_turn(warpgroup);
        multiply_scores();
        values.wait_full(bulk_keys);  // whole: there are keys after it
        multiply_values();
        if constexpr (kTurns) give_turn(warpgroup);
        wgmma_wait<1>();
        pin(s);
        keys.release(keys.stage);
        keys.advance();
        soften(t);
        // Never true. It keeps the softmax before the wait, which ptxas otherwise moves up: the values' product runs
        // on.
        if (__any_sync(0xffffffffu, sum[0] < 0 || sum[1] < 0)) break;
        wgmma_wait<0>();
        pin(out);
        keep(p);
        values.release(values.stage);
        values.advance();
        if (!kSkipRescale || __any_sync(0xffffffffu, factor[0] != 1.f || factor[1] != 1.f)) {
#pragma unroll
          for (int d = 0; d < kD / 8; ++d)
#pragma unroll
            for (int i = 0; i < 4; ++i) out[d][i] *= factor[i / 2];
        }
        to_a<kKeys / 8>(p, s);
      }
      if constexpr (!kRegisterQueries) queries.release(queries.stage);
      values.wait_full(bulk_keys && end * kKeys <= piece.keys);
      multiply_values();
      wgmma_wait<0>();
      pin(out);
      values.release(values.stage);
      values.advance();
    } else if constexpr (!kRegisterQueries) {
      queries.release(queries.stage);
    }

    const int d_v = static_cast<int>(a.out.shape[2]);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int packed = row0 + h * 8;
      float total = sum[h], most = top[h] * factor2, rescale = 1;
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      if (packed >= n_packed) continue;
      const int query = divider.query(packed), q_head = piece.head * a.group + packed - query * a.group;
      const int64_t row = piece.first_row + query;
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
  }
}
#endif

template <int kD, bool kCapped, bool kTurns, bool kRegisterQueries, bool kSkipRescale>
__global__ void __launch_bounds__(kBlockThreads, 1)
    attention_kernel(const __grid_constant__ AttentionLaunch a, const __grid_constant__ WorkOrder order,
                     const __grid_constant__ TileMaps maps) {
#if PMETAL_WGMMA
  extern __shared__ unsigned char raw[];
  using L = Layout<kD>;
  const uint32_t unaligned = shared_address(raw), shared = (unaligned + 1023) & ~1023u;
  unsigned char* pieces = raw + (shared - unaligned) + L::kPieces;
  const Ring<kQueryStages> queries(shared + L::kBarriers);
  const Ring<kKeyStages> keys(queries.barriers + queries.kBytes), values(keys.barriers + keys.kBytes);
  if (threadIdx.x == 0) {
    queries.init(kWarpgroup + 1);
    keys.init(kWarpgroup);
    values.init(kWarpgroup);
  }
  __syncthreads();
  if (warpgroup_index() == 0) {
    give_registers<40>();
    copy_tiles<kD>(a, maps, order, shared, pieces, queries, keys, values, shared + L::kNext);
  } else {
    take_registers<40>();
    multiply_tiles<kD, kCapped, kTurns, kRegisterQueries, kSkipRescale>(a, maps.has_rows, maps.has_keys, shared, pieces,
                                                                        queries, keys, values);
  }
#endif
}

template <int kD, bool kCapped, bool kTurns = true, bool kRegisterQueries = false, bool kSkipRescale = false>
void run(StreamHandle stream, const AttentionLaunch& a) {
  const auto kernel = attention_kernel<kD, kCapped, kTurns, kRegisterQueries, kSkipRescale>;
  static SharedLimit limit;
  allow_shared(limit, reinterpret_cast<const void*>(kernel), Layout<kD>::kAll);
  const WorkOrder order(blocks_for(int64_t{a.max_q} * a.group, kBlockRows), a.q.shape[1] / a.group * a.sequences,
                        a.max_kv * kD * 4, a.taken);
  kernel<<<blocks_for(order.count(), 1, a.multiprocessors), kBlockThreads, Layout<kD>::kAll, stream>>>(
      a, order, make_maps(a, kKeys));
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
