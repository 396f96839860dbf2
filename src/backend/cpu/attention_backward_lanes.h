// attention backward on AMX tiles with queries as lanes (formulas: attention_backward.cc). A task owns one key/value
// head of one sequence, hence all gradients it writes:
//   once                     K and V as A tiles, Kᵀ as A tiles
//   for each strip of 128 (query, head) rows, the lanes:
//     Q and dO as B tiles, across (for Sᵀ, dPᵀ) and along (for dK, dV); D = Σ out · dout
//     for each block of 64 keys that one of them sees, for each 32 lanes:
//       Sᵀ = K Qᵀ, dPᵀ = V dOᵀ [64, 32]
//       P = e^(S − lse), dS = P (dP − D)     a row of keys is a row of an A tile, two of them are a line of a B tile
//     and dV += P dO, dK += dS Q [64, d]
//     after four blocks dQᵀ [d, 32] += Kᵀ dSᵀ, so that sums stay in tiles for longer
// so that nothing but the inputs is transposed. Sums are kept in f32, dQ for the strip, dK and dV for the sequence;
// each element is one chain in order of keys or queries. Scale is applied to dQ and dK at the end.
#pragma once

#include <cmath>
#include <limits>

#include "backend/cpu/attention_blocks.h"
#include "backend/cpu/attention_span.h"
#include "backend/cpu/lane_tiles.h"
#include "backend/cpu/plain.h"

namespace pmetal::cpu {

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,avx2,f16c")

template <class Tiles>
class AttentionBackwardLanes {
 public:
  AttentionBackwardLanes(const GemmKernels& kernels, const ops::AttentionBackwardArgs& args)
      : args_(args), kernels_(kernels) {}

  static bool takes(const ops::AttentionBackwardArgs& args) {
    return args.forward.q.dtype == DType::kBF16 && args.forward.q.dim(2) % 32 == 0 && args.dout.dim(2) % 32 == 0;
  }
  int64_t worker_bytes() const { return carve(nullptr).bytes; }

  void run(const KernelContext& kernel) const {
    const int64_t per_worker = worker_bytes();
    for_items(kernel, f_.kv_len.dim(0) * kv_heads_, [&](int64_t item, int worker) {
      const AttentionSequence sequence = sequence_at(f_, item / kv_heads_);
      Tiles tiles;
      tiles.configure(16, 16);
      Task{*this, carve(static_cast<char*>(kernel.workspace) + worker * per_worker), LaneTiles<Tiles>{tiles}, sequence,
           item % kv_heads_}();
      tiles.release();
    });
  }

 private:
  static constexpr int64_t kKeys = ops::kAttentionBlock, kUnit = 2 * kLanes, kUnits = 4, kStrip = kUnits * kUnit;
  static constexpr int64_t kUnitBytes = kKeys * kUnit * 2;  // of p or ds of 32 lanes
  static constexpr int64_t kWaiting = 4;                    // blocks whose ds is kept for dQ
  using F = __m512;

  struct Scratch {
    char *q_across, *dout_across, *q_along, *dout_along;
    char *k, *v, *k_columns, *stage, *p, *ds, *ds_columns;
    float *s, *dp, *dq, *dk, *dv, *lse, *delta;
    int32_t *begin, *end;  // of the keys that a lane sees
    int64_t bytes;
  };
  Scratch carve(void* data) const {
    Carver c(data);
    const int64_t lanes = kStrip, keys = padded(max_keys(), kKeys);
    Scratch w;
    w.q_across = c.take<char>(lanes * d_k_ * 2);
    w.q_along = c.take<char>(lanes * d_k_ * 2);
    w.dout_across = c.take<char>(lanes * d_v_ * 2);
    w.dout_along = c.take<char>(lanes * d_v_ * 2);
    w.k = c.take<char>(keys * d_k_ * 2);
    w.k_columns = c.take<char>(keys * d_k_ * 2);
    w.v = c.take<char>(keys * d_v_ * 2);
    w.stage = c.take<char>(kKeys * std::max(d_k_, d_v_) * 2);
    w.p = c.take<char>(kUnits * kUnitBytes);
    w.ds = c.take<char>(kUnits * kUnitBytes);
    w.ds_columns = c.take<char>(kWaiting * kUnits * kUnitBytes);
    w.s = c.take<float>(std::max(kKeys * kUnit, kLanes * d_k_));
    w.dp = c.take<float>(kKeys * kUnit);
    w.dq = c.take<float>(lanes * d_k_);
    w.dk = c.take<float>(keys * d_k_);
    w.dv = c.take<float>(keys * d_v_);
    w.lse = c.take<float>(lanes);
    w.delta = c.take<float>(lanes);
    w.begin = c.take<int32_t>(lanes);
    w.end = c.take<int32_t>(lanes);
    w.bytes = c.used();
    return w;
  }

  int64_t max_keys() const {
    const int32_t* n = f_.kv_len.template as<int32_t>();
    int32_t most = 1;
    for (int64_t s = 0; s < f_.kv_len.dim(0); ++s) most = std::max(most, n[s]);
    return most;
  }

  struct Task {
    const AttentionBackwardLanes& a;
    Scratch w;
    LaneTiles<Tiles> tiles;
    AttentionSequence sequence;
    int64_t kv_head;
    struct Lane {
      int64_t row, head;
    };
    Lane lanes[kStrip] = {};                  // of the strip
    int64_t n = 0;                            // how many of them are used
    int64_t units[kUnits] = {}, n_units = 0;  // the 32 lanes each that see something of the block
    int64_t halves[kUnits] = {};              // 1: of its first 32 keys alone
    struct Waiting {                          // for dQ
      int64_t base = 0;
      int64_t halves[kUnits] = {};  // 0: nothing
    };
    Waiting waiting[kWaiting] = {};
    int64_t n_waiting = 0;
    // the rows of the next strip, fetched while this one is worked on
    int64_t next_row = 0, next_head = 0, next_lanes = 0, fetched_at_once = 0;
    int64_t written = 0, written_at_once = 0;  // rows of dq, likewise

    void operator()() {
      const int64_t blocks = (sequence.keys + kKeys - 1) / kKeys;
      for (int64_t b = 0; b < blocks; ++b) pack_block(b);
      std::fill_n(w.dk, blocks * kKeys * a.d_k_, 0.f);
      std::fill_n(w.dv, blocks * kKeys * a.d_v_, 0.f);
      const int64_t all = sequence.rows * a.group_;
      int64_t row = sequence.first_row, head = 0;
      for (int64_t first = 0; first < all; first += kStrip) {
        n = std::min(kStrip, all - first);
        for (int64_t i = 0; i < n; ++i) {
          lanes[i] = {row, kv_head * a.group_ + head};
          if (++head < a.group_) continue;
          ++row;
          head = 0;
        }
        pack_lanes(a.f_.q, a.d_k_, w.q_across, w.q_along);
        pack_lanes(a.args_.dout, a.d_v_, w.dout_across, w.dout_along);
        rows_of_lanes();
        std::fill_n(w.dq, padded(n, kUnit) * a.d_k_, 0.f);
        const int64_t begin = *std::min_element(w.begin, w.begin + n), end = *std::max_element(w.end, w.end + n);
        const int64_t steps =
            std::max<int64_t>(1, (end + kKeys - 1) / kKeys - begin / kKeys) * ((n + kUnit - 1) / kUnit);
        next_row = row, next_head = head, next_lanes = std::min(kStrip, all - first - n);
        fetched_at_once = (next_lanes + steps - 1) / steps;
        written = 0, written_at_once = (n + steps - 1) / steps;
        for (int64_t b = begin / kKeys; b * kKeys < end; ++b) block(b);
        add_queries();
        finish_queries();
      }
      const int64_t key = a.f_.cu_k.template as<int32_t>()[sequence.index];
      put_keys(w.dk, a.d_k_, a.f_.scale, a.args_.dk, key);
      put_keys(w.dv, a.d_v_, 1, a.args_.dv, key);
    }

    int64_t offset_of(const View& v, int64_t lane) const {
      return lanes[lane].row * v.stride(0) + lanes[lane].head * v.stride(1);
    }
    const char* row_of(const View& v, int64_t lane) const {
      return static_cast<const char*>(v.data) + offset_of(v, lane) * 2;
    }

    void fetch_next() {
      for (int64_t i = std::min(written_at_once, n - written); i > 0; --i, ++written)
        fetch_to_write(static_cast<const BF16*>(a.args_.dq.data) + offset_of(a.args_.dq, written), a.d_k_);
      for (int64_t i = std::min(fetched_at_once, next_lanes); i > 0; --i, --next_lanes) {
        const int64_t head = kv_head * a.group_ + next_head;
        for (const View* v : {&a.f_.q, &a.f_.out, &a.args_.dout}) {
          const char* at = static_cast<const char*>(v->data) + (next_row * v->stride(0) + head * v->stride(1)) * 2;
          for (int64_t c = 0; c < v->dim(2) * 2; c += 64) _mm_prefetch(at + c, _MM_HINT_T1);
        }
        if (++next_head < a.group_) continue;
        ++next_row;
        next_head = 0;
      }
    }

    // across: for each 16 lanes B tiles [16 pairs of d][16 lanes]; along: for each 32 lanes B tiles [16 pairs of
    // lanes][16 d]. Rows are read whole: those of a head lie kilobytes apart.
    void pack_lanes(const View& v, int64_t d, char* across, char* along) {
      for (int64_t lane = 0; lane < padded(n, kUnit); lane += kUnit) {
        char* rows = w.stage;
        for (int64_t j = 0; j < kUnit; ++j)
          if (lane + j < n) {
            const char* from = row_of(v, lane + j);
            for (int64_t i = 0; i < d; i += 32)
              _mm512_store_si512(rows + (j * d + i) * 2, _mm512_loadu_si512(from + i * 2));
          } else {
            std::memset(rows + j * d * 2, 0, static_cast<size_t>(d * 2));
          }
        for (int64_t i = 0; i < d; i += 32)
          for (int64_t half = 0; half < 2; ++half) {
            a.kernels_.transpose16(rows + half * kLanes * d * 2 + i * 2, d * 2,
                                   across + (lane + half * kLanes) * d * 2 + i / 32 * kTileBytes, 64);
            a.kernels_.interleave(rows + i * 2 + half * 32, d * 2, along + lane * d * 2 + (i / 16 + half) * kTileBytes);
          }
      }
    }

    void rows_of_lanes() {
      const int64_t all = padded(n, kUnit);
      std::fill_n(w.lse + n, all - n, std::numeric_limits<float>::infinity());
      std::fill_n(w.delta + n, all - n, 0.f);
      std::fill_n(w.begin + n, all - n, 0);
      std::fill_n(w.end + n, all - n, 0);
      const ScoreRows& rows = score_rows_avx512();
      for (int64_t i = 0; i < n; ++i) {
        if (i + 4 < n)
          for (int64_t c = 0; c < a.d_v_ * 2; c += 64) _mm_prefetch(row_of(a.f_.out, i + 4) + c, _MM_HINT_T0);
        w.lse[i] = a.f_.lse.template as<float>()[offset_of(a.f_.lse, i)] * kLog2E;
        w.delta[i] = rows.dot(row_of(a.f_.out, i), row_of(a.args_.dout, i), a.d_v_, DType::kBF16);
        const KeyRange seen = visible(a.f_.mask, sequence.query_of(lanes[i].row), sequence.keys);
        w.begin[i] = static_cast<int32_t>(seen.begin);
        w.end[i] = static_cast<int32_t>(std::max(seen.begin, seen.end));
      }
    }

    // A tiles [16 keys][32 d], those of a group of sixteen keys side by side
    void pack_keys(const char* rows, int64_t stride, int64_t d, char* to) {
      for (int64_t j = 0; j < kKeys; ++j)
        for (int64_t i = 0; i < d; i += 32)
          std::memcpy(to + j / 16 * 16 * d * 2 + i / 32 * kTileBytes + j % 16 * 64, rows + j * stride + i * 2, 64);
    }
    // A tiles [16 d][32 keys]: those of keys 0 .. 31 and 32 .. 63 side by side
    void pack_columns(const char* rows, int64_t stride, int64_t d, char* to) {
      alignas(64) char pairs[kTileBytes];
      for (int64_t i = 0; i < d; i += 16)
        for (int64_t half = 0; half < 2; ++half) {
          a.kernels_.interleave(rows + half * 32 * stride + i * 2, stride, pairs);
          a.kernels_.transpose16(pairs, 64, to + (i / 16 * 2 + half) * kTileBytes, 64);
        }
    }

    void pack_block(int64_t b) {
      const int64_t keys = std::min(kKeys, sequence.keys - b * kKeys);
      const AttentionTypes types(a.kernels_, DType::kBF16);
      {
        const BlockRows v(types, a.f_.v, key_block(a.f_, a.f_.v, sequence.index, kv_head, b), keys, a.d_v_, w.stage);
        pack_keys(v.data, v.stride * 2, a.d_v_, w.v + b * kKeys * a.d_v_ * 2);
      }
      const BlockRows k(types, a.f_.k, key_block(a.f_, a.f_.k, sequence.index, kv_head, b), keys, a.d_k_, w.stage);
      pack_keys(k.data, k.stride * 2, a.d_k_, w.k + b * kKeys * a.d_k_ * 2);
      pack_columns(k.data, k.stride * 2, a.d_k_, w.k_columns + b * kKeys * a.d_k_ * 2);
    }

    void block(int64_t b) {
      const int64_t base = b * kKeys, keys = std::min(kKeys, sequence.keys - base);
      n_units = 0;
      Waiting& mine = waiting[n_waiting];
      mine = {base, {}};
      for (int64_t u = 0; u * kUnit < n; ++u) {
        const int64_t lane = u * kUnit;
        fetch_next();
        bool any = false, all = true;
        int64_t last = 0;
        for (int64_t i = lane; i < std::min(lane + kUnit, n); ++i) {
          any |= w.begin[i] < base + keys && w.end[i] > base;
          all &= w.begin[i] <= base && w.end[i] >= base + kKeys;
          last = std::max<int64_t>(last, w.end[i]);
        }
        if (!any) continue;
        units[n_units++] = u;
        mine.halves[u] = halves[u] = last > base + kKeys / 2 ? 2 : 1;
        across(w.k + base * a.d_k_ * 2, a.d_k_, w.q_across + lane * a.d_k_ * 2, w.s, halves[u]);
        across(w.v + base * a.d_v_ * 2, a.d_v_, w.dout_across + lane * a.d_v_ * 2, w.dp, halves[u]);
        const auto put = [&](auto masked, auto capped) {
          gradients<decltype(masked)::value, decltype(capped)::value>(lane, u, static_cast<int32_t>(base));
        };
        const auto choose = [&](auto masked) {
          a.f_.softcap > 0 ? put(masked, std::true_type()) : put(masked, std::false_type());
        };
        all ? choose(std::false_type()) : choose(std::true_type());
      }
      if (n_units == 0) return;
      along(w.p, w.dout_along, a.d_v_, w.dv + base * a.d_v_);
      along(w.ds, w.q_along, a.d_k_, w.dk + base * a.d_k_);
      if (++n_waiting == kWaiting) add_queries();
    }

    // c [64 or 32, 32 lanes] = x · bᵀ, depth d
    void across(const char* x, int64_t d, const char* b, float* c, int64_t n_halves) {
      const int64_t steps = d / 32;
      for (int64_t half = 0; half < n_halves; ++half) {
        const char* rows = x + half * 32 * d * 2;
        tiles.zero();
        for (int64_t i = 0; i < steps; ++i)
          tiles.template multiply<true>(rows + i * kTileBytes, rows + (steps + i) * kTileBytes, 64, b + i * kTileBytes,
                                        b + (steps + i) * kTileBytes);
        tiles.store(c + half * 32 * kUnit);
      }
    }

    // c [d / 32][64][32] += x · b, x [64, lanes of the strip's units], b their rows
    void along(const char* x, const char* b, int64_t d, float* c) {
      for (int64_t i = 0; i < d; i += 32)
        for (int64_t half = 0; half < 2; ++half) {
          float* to = c + i * kKeys + half * 32 * kUnit;
          tiles.load(to);
          for (int64_t n = 0; n < n_units; ++n) {
            if (half >= halves[units[n]]) continue;
            const char* rows = x + units[n] * kUnitBytes + half * 2 * kTileBytes;
            const char* columns = b + units[n] * kUnit * d * 2 + i / 16 * kTileBytes;
            tiles.multiply(rows, rows + kTileBytes, 64, columns, columns + kTileBytes);
          }
          tiles.store(to);
        }
    }

    // dqᵀ [d, 32 lanes] += kᵀ dsᵀ of the blocks that wait
    void add_queries() {
      for (int64_t u = 0; u * kUnit < n; ++u)
        for (int64_t i = 0; i < a.d_k_; i += 32) {
          float* to = w.dq + u * kUnit * a.d_k_ + i * kUnit;
          tiles.load(to);
          for (int64_t b = 0; b < n_waiting; ++b) {
            if (waiting[b].halves[u] == 0) continue;
            const char *k = w.k_columns + waiting[b].base * a.d_k_ * 2 + i / 16 * 2 * kTileBytes,
                       *ds = w.ds_columns + (b * kUnits + u) * kUnitBytes;
            for (int64_t half = 0; half < waiting[b].halves[u]; ++half)
              tiles.multiply(k + half * kTileBytes, k + (2 + half) * kTileBytes, 64, ds + half * kTileBytes,
                             ds + (2 + half) * kTileBytes);
          }
          tiles.store(to);
        }
      n_waiting = 0;
    }

    // p and ds of 32 lanes: as A tiles [16 keys][32 lanes], ds also as B tiles [16 pairs of keys][16 lanes], of which
    // the first has lanes 0 … 3, 8 … 11, 16 … 19, 24 … 27 and the second the others: that is what unpacking gives
    template <bool kMasked, bool kCapped>
    void gradients(int64_t lane, int64_t unit, int32_t base) {
      const F scale = Avx512::all(kCapped ? a.f_.scale : a.f_.scale * kLog2E), cap = Avx512::all(a.f_.softcap * kLog2E),
              one = Avx512::all(1), two_by_cap = Avx512::all(kCapped ? 2 / a.f_.softcap : 0);
      char *p_rows = w.p + unit * kUnitBytes, *ds_rows = w.ds + unit * kUnitBytes,
           *columns = w.ds_columns + (n_waiting * kUnits + unit) * kUnitBytes;
      F lse[2], delta[2];
      __m512i begin[2], end[2];
      for (int64_t c = 0; c < 2; ++c) {
        lse[c] = _mm512_load_ps(w.lse + lane + c * kLanes);
        delta[c] = _mm512_load_ps(w.delta + lane + c * kLanes);
        begin[c] = _mm512_load_si512(w.begin + lane + c * kLanes);
        end[c] = _mm512_load_si512(w.end + lane + c * kLanes);
      }
      for (int64_t j = 0; j < halves[unit] * kKeys / 2; j += 2) {
        F p[2][2], ds[2][2];  // [key][column of lanes]
        for (int64_t k = 0; k < 2; ++k)
          for (int64_t c = 0; c < 2; ++c) {
            const int64_t at = (j + k) * kUnit + c * kLanes;
            F x = _mm512_load_ps(w.s + at), slope = one;
            if constexpr (kCapped) {
              const F e = Avx512::exp(two_by_cap * (x * scale)), t = one - Avx512::all(2) / (e + one);
              x = exp2_of(cap * t - lse[c]);
              slope = one - t * t;
            } else {
              x = exp2_of(_mm512_fmsub_ps(x, scale, lse[c]));
            }
            F y = x * (_mm512_load_ps(w.dp + at) - delta[c]);
            if constexpr (kCapped) y = y * slope;
            if constexpr (kMasked) {
              const __m512i key = _mm512_set1_epi32(base + static_cast<int32_t>(j + k));
              const auto seen =
                  static_cast<__mmask16>(_mm512_cmple_epi32_mask(begin[c], key) & _mm512_cmpgt_epi32_mask(end[c], key));
              x = _mm512_maskz_mov_ps(seen, x);
              y = _mm512_maskz_mov_ps(seen, y);
            }
            p[k][c] = x;
            ds[k][c] = y;
          }
        __m512i rows[2];
        for (int64_t k = 0; k < 2; ++k) {
          _mm512_store_si512(p_rows + (j + k) * 64, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(p[k][1], p[k][0])));
          rows[k] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(ds[k][1], ds[k][0]));
          _mm512_store_si512(ds_rows + (j + k) * 64, rows[k]);
        }
        _mm512_store_si512(columns + j / 2 * 64, _mm512_unpacklo_epi16(rows[0], rows[1]));
        _mm512_store_si512(columns + 2 * kTileBytes + j / 2 * 64, _mm512_unpackhi_epi16(rows[0], rows[1]));
      }
    }

    static void put_32(const float* low, const float* high, F factor, BF16* to) {
      _mm512_storeu_si512(to, reinterpret_cast<__m512i>(
                                  _mm512_cvtne2ps_pbh(factor * _mm512_load_ps(high), factor * _mm512_load_ps(low))));
    }
    static void fetch_to_write(const BF16* row, int64_t d) {
      for (int64_t i = 0; i < d; i += 32) asm volatile("prefetchw %0" : : "m"(row[i]));
    }

    // rows of dk or dv
    void put_keys(const float* from, int64_t d, float factor, const View& v, int64_t row) const {
      const F f = Avx512::all(factor);
      constexpr int64_t kAhead = 8;
      auto* to = static_cast<BF16*>(v.data) + row * v.stride(0) + kv_head * v.stride(1);
      for (int64_t j = 0; j < sequence.keys; ++j, to += v.stride(0)) {
        if (j + kAhead < sequence.keys) fetch_to_write(to + kAhead * v.stride(0), d);
        for (int64_t i = 0; i < d; i += 32) {
          const float* at = from + j / kKeys * kKeys * d + i * kKeys + j % kKeys * kUnit;
          put_32(at, at + kLanes, f, to + i);
        }
      }
    }

    void finish_queries() {
      auto* rows = w.s;  // [16 lanes][d]
      const F f = Avx512::all(a.f_.scale);
      for (int64_t lane = 0; lane < padded(n, kUnit); lane += kLanes) {
        const float* dq = w.dq + lane / kUnit * kUnit * a.d_k_ + lane % kUnit;
        for (int64_t d = 0; d < a.d_k_; d += kLanes) a.kernels_.transpose16(dq + d * kUnit, 128, rows + d, a.d_k_ * 4);
        for (int64_t i = 0; i < kLanes; ++i) {
          const int64_t of = lane / kUnit * kUnit + lane % kUnit / 4 + i / 4 * 8 + i % 4;  // see gradients()
          if (of >= n) continue;
          auto* to = static_cast<BF16*>(a.args_.dq.data) + offset_of(a.args_.dq, of);
          for (int64_t d = 0; d < a.d_k_; d += 32)
            put_32(rows + i * a.d_k_ + d, rows + i * a.d_k_ + d + kLanes, f, to + d);
        }
      }
    }
  };

  const ops::AttentionBackwardArgs& args_;
  const GemmKernels& kernels_;
  const ops::AttentionArgs& f_ = args_.forward;
  int64_t d_k_ = f_.q.dim(2), d_v_ = f_.out.dim(2), kv_heads_ = f_.k.dim(1);
  int64_t group_ = f_.q.dim(1) / kv_heads_;
};

#pragma GCC pop_options

}  // namespace pmetal::cpu
