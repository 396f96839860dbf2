// attention forward on AMX tiles with queries as lanes: everything between the products works on sixteen queries side
// by side, without sums across a vector. Over a layer of tile registers, so that it also runs on emulated ones.
//   for each (sequence, key/value head, tile of (query, head) rows, the lanes):                      a task
//     for each block of 64 keys that one of them sees:      Vᵀ as A tiles, once
//       for each 32 lanes:
//         Sᵀ [64, 32] = K Qᵀ      K is read where it lies: 16 rows of it are an A tile; Q lies packed as B tiles
//         P = e^(s − max)         as bf16 with what rounding took from it as a second bf16 (see attention_gemm.cc)
//         Oᵀ [d_v, 32] += Vᵀ Pᵀ   P's rows meet in pairs of keys: that is a B tile
//   at the end Oᵀ / sum is turned into rows.
// Each score is one chain over d_k, each output and sum one chain over the keys in order: bits of a row depend on the
// row alone. Speed: bench/kernels/cpu_gemm.md.
#pragma once

#include <cmath>
#include <limits>

#include "backend/cpu/attention_blocks.h"
#include "backend/cpu/lane_tiles.h"
#include "backend/cpu/plain.h"

namespace pmetal::cpu {

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,avx2,f16c")

template <class Tiles>
class AttentionLanes {
 public:
  AttentionLanes(const GemmKernels& kernels, const ops::AttentionArgs& args)
      : args_(args), types_(kernels, DType::kBF16) {}

  static bool takes(const ops::AttentionArgs& args) {
    return args.q.dtype == DType::kBF16 && args.q.dim(2) % 32 == 0 && args.out.dim(2) % 32 == 0;
  }
  int64_t worker_bytes() const { return carve(nullptr).bytes; }

  void run(const KernelContext& kernel) const {
    const int64_t per_worker = worker_bytes(), items = args_.kv_len.dim(0) * kv_heads_ * tiles_;
    const auto one = [&](int64_t item, int worker) {
      const AttentionSequence sequence = sequence_at(args_, item / tiles_ / kv_heads_);
      const int64_t first = (tiles_ - 1 - item % tiles_) * tile_;  // the longest first
      if (first >= sequence.rows) return;
      Tiles tiles;
      tiles.configure(16, 16);
      Task{*this,
           carve(static_cast<char*>(kernel.workspace) + worker * per_worker),
           LaneTiles<Tiles>{tiles},
           sequence,
           item / tiles_ % kv_heads_,
           sequence.first_row + first,
           std::min(tile_, sequence.rows - first)}();
      tiles.release();
    };
    if (args_.q.dim(0) * group_ * kv_heads_ * std::max<int64_t>(args_.max_kv, 1) < 4096)
      for (int64_t i = 0; i < items; ++i) one(i, 0);
    else
      for_items(kernel, items, one);
  }

 private:
  static constexpr int64_t kTileRows = 256, kKeys = ops::kAttentionBlock, kBlock = kTileBytes;
  static constexpr float kSlack = 8;  // of a row's maximum: e^8 · 2^16 keys are far from the end of f32
  static constexpr int64_t kPBytes = 4 * 2 * kBlock, kSElements = kKeys * 2 * kLanes;  // of 32 lanes; two of each
  using F = __m512;

  struct Scratch {
    char *q, *p, *v, *stage, *rows, *seen_v;
    float *s, *o, *spare, *max, *sum;
    int32_t *begin, *end;  // of the keys that a lane sees
    int64_t bytes;
  };
  Scratch carve(void* data) const {
    Carver c(data);
    const int64_t lanes = padded(std::min(tile_, most_query_rows(args_)) * group_, 2 * kLanes);
    Scratch w;
    w.q = c.take<char>(lanes * d_k_ * 2);
    w.p = c.take<char>(2 * kPBytes);
    w.v = c.take<char>(kKeys * d_v_ * 2);
    w.stage = c.take<char>(kKeys * std::max(d_k_, d_v_) * 2);
    w.rows = c.take<char>(kKeys * d_v_ * 2);
    w.seen_v = c.take<char>(kKeys * d_v_ * 2);
    w.s = c.take<float>(2 * kSElements);
    w.o = c.take<float>(lanes * d_v_);
    w.spare = c.take<float>(2 * kLanes * d_v_);
    w.max = c.take<float>(lanes);
    w.sum = c.take<float>(lanes);
    w.begin = c.take<int32_t>(lanes);
    w.end = c.take<int32_t>(lanes);
    w.bytes = c.used();
    return w;
  }

  struct Task {
    const AttentionLanes& a;
    Scratch w;
    LaneTiles<Tiles> tiles;
    AttentionSequence sequence;
    int64_t kv_head, row, n;
    int64_t turn = 0;  // which of the two s and p the vectors work on
    // What the tiles have to do, in steps of four products, which are handed out between the vectors' iterations: the
    // scores of the next 32 lanes and the values of the last
    struct Work {
      const char *a = nullptr, *b = nullptr;  // K or Vᵀ; Q or P
      int64_t a_stride = 0;
      float* c = nullptr;   // s or o
      bool is_pair = true;  // the lanes are more than 16
      int64_t at = 0, steps = 0;
    };
    Work next_scores = {}, last_values = {};

    int64_t used() const { return n * a.group_; }

    void operator()() {
      const int64_t lanes = padded(used(), 2 * kLanes);
      pack_queries();
      std::fill_n(w.o, lanes * a.d_v_, 0.f);
      std::fill_n(w.max, lanes, -std::numeric_limits<float>::infinity());
      std::fill_n(w.sum, lanes, 0.f);
      std::fill_n(w.begin, lanes, 0);
      std::fill_n(w.end, lanes, 0);
      int64_t begin = sequence.keys, end = 0;
      for (int64_t i = 0; i < n; ++i) {
        const KeyRange seen = visible(a.args_.mask, sequence.query_of(row + i), sequence.keys);
        if (seen.begin >= seen.end) continue;
        std::fill_n(w.begin + i * a.group_, a.group_, static_cast<int32_t>(seen.begin));
        std::fill_n(w.end + i * a.group_, a.group_, static_cast<int32_t>(seen.end));
        begin = std::min(begin, seen.begin);
        end = std::max(end, seen.end);
      }
      for (int64_t b = begin / kKeys; b * kKeys < end; ++b) block(b);
      finish();
    }

    const char* row_of(const View& v, int64_t lane) const {
      return static_cast<const char*>(v.data) +
             ((row + lane / a.group_) * v.stride(0) + (kv_head * a.group_ + lane % a.group_) * v.stride(1)) * 2;
    }

    // B tiles [16 pairs of d][16 lanes][2]
    void pack_queries() {
      alignas(64) char rows[kLanes * 64];
      for (int64_t lane = 0; lane < padded(used(), 2 * kLanes); lane += kLanes)
        for (int64_t d = 0; d < a.d_k_; d += 32) {
          for (int64_t i = 0; i < kLanes; ++i)
            if (lane + i < used())
              std::memcpy(rows + i * 64, row_of(a.args_.q, lane + i) + d * 2, 64);
            else
              std::memset(rows + i * 64, 0, 64);
          a.types_.kernels.transpose16(rows, 64, w.q + lane * a.d_k_ * 2 + d / 32 * kBlock, 64);
        }
    }

    // A tiles [16 d][32 keys]: those of keys 0 .. 31 and 32 .. 63 side by side
    void pack_values(const char* rows, int64_t stride, char* to) {
      alignas(64) char pairs[kBlock];
      for (int64_t d = 0; d < a.d_v_; d += 16)
        for (int64_t half = 0; half < 2; ++half) {
          a.types_.kernels.interleave(rows + half * 32 * stride + d * 2, stride, pairs);
          a.types_.kernels.transpose16(pairs, 64, to + (d / 16 * 2 + half) * kBlock, 64);
        }
    }

    // how many of the lanes [first, first + 32) see something of the keys [base, base + keys), and whether all see all
    struct Sight {
      bool any = false, all = true;
    };
    Sight sight(int64_t first, int64_t base, int64_t keys) const {
      Sight s;
      for (int64_t i = first; i < std::min(first + 2 * kLanes, used()); ++i) {
        s.any |= w.begin[i] < base + keys && w.end[i] > base;
        s.all &= w.begin[i] <= base && w.end[i] >= base + kKeys;
      }
      return s;
    }

    void block(int64_t b) {
      const int64_t base = b * kKeys, keys = std::min(kKeys, sequence.keys - base);
      bool any = false, partial = false;
      for (int64_t first = 0; first < used(); first += 2 * kLanes) {
        const Sight s = sight(first, base, keys);
        any |= s.any;
        partial |= s.any && !s.all;
      }
      if (!any) return;
      const bool few = used() <= 2 * kLanes;  // memory is what takes the time: as in decode
      if (few && keys == kKeys) {
        prefetch(a.args_.k, b, a.d_k_);
        prefetch(a.args_.v, b, a.d_v_);
      }
      bool finite = true;
      {
        const BlockRows v(a.types_, a.args_.v, key_block(a.args_, a.args_.v, sequence.index, kv_head, b), keys, a.d_v_,
                          w.stage);
        pack_values(v.data, v.stride * 2, w.v);
        if (partial) finite = is_finite(w.v, a.d_v_ * kKeys);
      }
      const BlockRows k(a.types_, a.args_.k, key_block(a.args_, a.args_.k, sequence.index, kv_head, b), keys, a.d_k_,
                        w.stage);
      const auto seeing = [&](int64_t first) {  // the next lanes that see something
        while (first < used() && !sight(first, base, keys).any) first += 2 * kLanes;
        return first;
      };
      int64_t first = seeing(0);
      plan_scores(k.data, k.stride * 2, first);
      finish_tiles();
      while (first < used()) {
        const int64_t next = seeing(first + 2 * kLanes);
        const Sight s = sight(first, base, keys);
        turn ^= 1;
        if (next < used()) plan_scores(k.data, k.stride * 2, next);
        for (int64_t c = 0; c < 2 && first + c * kLanes < used(); ++c)
          s.all ? softmax<false>(first, c, static_cast<int32_t>(base))
                : softmax<true>(first, c, static_cast<int32_t>(base));
        finish_tiles();
        if (s.all || finite)
          plan_values(w.v, first, w.o + first * a.d_v_);
        else
          add_seen_values(first, base, keys, b);
        first = next;
      }
      finish_tiles();
    }

    // into the s whose turn comes next
    void plan_scores(const char* k, int64_t stride, int64_t first) {
      next_scores = {k, w.q + first * a.d_k_ * 2, stride, w.s + (turn ^ 1) * kSElements, first + kLanes < used(),
                     0, kKeys / 32 * a.d_k_ / 32};
    }
    // o [d_v, 32 lanes] += Vᵀ Pᵀ with the p of this turn, first the rounded p, then the rests
    void plan_values(const char* v, int64_t first, float* o) {
      last_values = {v, w.p + turn * kPBytes, 64, o, first + kLanes < used(), 0, a.d_v_ / 32 * 4};
    }
    void tile_step() {
      if (next_scores.at < next_scores.steps)
        score_step(next_scores);
      else if (last_values.at < last_values.steps)
        value_step(last_values);
    }
    void finish_tiles() {
      while (next_scores.at < next_scores.steps) score_step(next_scores);
      while (last_values.at < last_values.steps) value_step(last_values);
    }

    // the rows of a block
    void prefetch(const View& v, int64_t b, int64_t d) const {
      const KeyBlock at = key_block(a.args_, v, sequence.index, kv_head, b);
      const char* rows = static_cast<const char*>(v.data) + at.offset * 2;
      for (int64_t j = 0; j < kKeys; ++j)
        for (int64_t i = 0; i < d * 2; i += 64) _mm_prefetch(rows + j * at.stride * 2 + i, _MM_HINT_T0);
    }

    void score_step(Work& x) {
      const int64_t steps = a.d_k_ / 32, half = x.at / steps, d = x.at % steps;
      if (d == 0) tiles.zero();
      const char* k = x.a + half * 32 * x.a_stride + d * 64;
      tiles.multiply(k, k + 16 * x.a_stride, x.a_stride, x.b + d * kBlock, x.b + (steps + d) * kBlock, x.is_pair);
      if (d + 1 == steps) tiles.store(x.c + half * 32 * 2 * kLanes, x.is_pair);
      ++x.at;
    }
    void value_step(Work& x) {
      const int64_t d = x.at / 4, part = x.at % 4, half = part % 2;
      float* o = x.c + d * 32 * 2 * kLanes;
      if (part == 0) tiles.load(o, x.is_pair);
      const char *v = x.a + d * 4 * kBlock + half * kBlock, *p = x.b + part * 2 * kBlock;
      tiles.multiply(v, v + 2 * kBlock, 64, p, p + kBlock, x.is_pair);
      if (part == 3) tiles.store(o, x.is_pair);
      ++x.at;
    }

    // keys 2p and 2p + 1 of sixteen lanes as a line of a B tile, and what rounding took from them
    static inline __attribute__((always_inline)) void put_pair(F even, F odd, char* to, char* rest) {
      const __m512i p = pairs_of(even, odd);
      const F low = _mm512_castsi512_ps(_mm512_slli_epi32(p, 16));
      const F high = _mm512_castsi512_ps(_mm512_and_si512(p, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
      _mm512_store_si512(to, p);
      _mm512_store_si512(rest, pairs_of(even - low, odd - high));
    }

    // column c of the lanes from `first` on: its sixteen lanes of s become p
    template <bool kMasked>
    void softmax(int64_t first, int64_t c, int32_t base) {
      const float none = -std::numeric_limits<float>::infinity();
      const int64_t lane = first + c * kLanes;
      float* s = w.s + turn * kSElements + c * kLanes;
      constexpr int64_t kRow = 2 * kLanes;
      const float cap = a.args_.softcap;
      const F scale = Avx512::all(a.args_.scale), nothing = Avx512::all(none);
      const __m512i begin = _mm512_load_si512(w.begin + lane), end = _mm512_load_si512(w.end + lane);
      const auto seen = [&](int32_t key) {
        const __m512i at = _mm512_set1_epi32(base + key);
        return static_cast<__mmask16>(_mm512_cmple_epi32_mask(begin, at) & _mm512_cmpgt_epi32_mask(end, at));
      };
      const F before = _mm512_load_ps(w.max + lane);
      F max = before, other = before;
      if (cap > 0)
        for (int64_t j = 0; j < kKeys; ++j) {  // with the cap s becomes what the exponential takes
          const F x = _mm512_load_ps(s + j * kRow) * scale, t = x * Avx512::all(1 / cap);
          const F e = Avx512::exp(Avx512::all(2) * t);
          _mm512_store_ps(s + j * kRow, Avx512::all(cap) * (Avx512::all(1) - Avx512::all(2) / (e + Avx512::all(1))));
        }
      const F factor_of_s = cap > 0 ? Avx512::all(1) : scale;
      for (int64_t j = 0; j < kKeys; j += 2) {
        F x = _mm512_load_ps(s + j * kRow) * factor_of_s, y = _mm512_load_ps(s + (j + 1) * kRow) * factor_of_s;
        if constexpr (kMasked) {
          x = _mm512_mask_mov_ps(nothing, seen(static_cast<int32_t>(j)), x);
          y = _mm512_mask_mov_ps(nothing, seen(static_cast<int32_t>(j + 1)), y);
        }
        max = _mm512_max_ps(x, max);  // passes over NaN: its own e^s is NaN
        other = _mm512_max_ps(y, other);
      }
      max = _mm512_max_ps(max, other);
      // what is subtracted follows the maximum when that has grown by more than kSlack, so that sums are seldom scaled
      const __mmask16 moved = _mm512_cmp_ps_mask(max, before + Avx512::all(kSlack), _CMP_GT_OQ);
      const F now = _mm512_mask_mov_ps(before, moved, max);
      const F shift = _mm512_mask_mov_ps(now, _mm512_cmp_ps_mask(now, nothing, _CMP_EQ_OQ), _mm512_setzero_ps());
      F even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
      for (int64_t j = 0; j < kKeys; j += 2) {
        F x = exp_below(_mm512_fmsub_ps(_mm512_load_ps(s + j * kRow), factor_of_s, shift));
        F y = exp_below(_mm512_fmsub_ps(_mm512_load_ps(s + (j + 1) * kRow), factor_of_s, shift));
        if constexpr (kMasked) {
          x = _mm512_maskz_mov_ps(seen(static_cast<int32_t>(j)), x);
          y = _mm512_maskz_mov_ps(seen(static_cast<int32_t>(j + 1)), y);
        }
        even += x;
        odd += y;
        if (j % 4 == 0) tile_step();
        char* to = w.p + turn * kPBytes + c * kBlock + j / 32 * 2 * kBlock + j % 32 / 2 * 64;
        put_pair(x, y, to, to + 4 * kBlock);
      }
      F sum = _mm512_load_ps(w.sum + lane);
      if (moved) {
        const F factor = _mm512_mask_mov_ps(Avx512::all(1), moved, exp_below(before - shift));
        sum = sum * factor;
        float* o = w.o + first * a.d_v_ + c * kLanes;
        const bool has_sums = moved & _mm512_cmp_ps_mask(before, nothing, _CMP_NEQ_UQ);
        for (int64_t d = 0; has_sums && d < a.d_v_;
             ++d) {  // tiles take subnormals for zero: so that it does not matter when
          const F v = _mm512_load_ps(o + d * kRow) * factor;
          const __mmask16 normal = _mm512_cmp_ps_mask(_mm512_abs_ps(v), _mm512_set1_ps(0x1p-126f), _CMP_NLT_UQ);
          _mm512_store_ps(o + d * kRow, _mm512_maskz_mov_ps(normal, v));
        }
        _mm512_store_ps(w.max + lane, now);
      }
      _mm512_store_ps(w.sum + lane, sum + (even + odd));
    }

    // 0 · NaN: what a row does not see must not reach it. Lane by lane, with the other values cleared.
    void add_seen_values(int64_t first, int64_t base, int64_t keys, int64_t b) {
      float* o = w.o + first * a.d_v_;
      const KeyBlock at = key_block(a.args_, a.args_.v, sequence.index, kv_head, b);
      const int64_t stride = a.d_v_ * 2;
      for (int64_t i = first; i < std::min(first + 2 * kLanes, used()); ++i) {
        std::memset(w.rows, 0, static_cast<size_t>(kKeys * stride));
        for (int64_t j = std::max<int64_t>(w.begin[i] - base, 0); j < std::min<int64_t>(w.end[i] - base, keys); ++j)
          std::memcpy(w.rows + j * stride, static_cast<const char*>(a.args_.v.data) + (at.offset + j * at.stride) * 2,
                      static_cast<size_t>(stride));
        pack_values(w.rows, stride, w.seen_v);
        std::copy_n(o, 2 * kLanes * a.d_v_, w.spare);
        plan_values(w.seen_v, first, w.spare);
        finish_tiles();
        for (int64_t d = 0; d < a.d_v_; ++d) o[d * 2 * kLanes + i - first] = w.spare[d * 2 * kLanes + i - first];
      }
    }

    static bool is_finite(const char* values, int64_t count) {
      const __m512i exponent = _mm512_set1_epi16(0x7f80);
      __mmask32 bad = 0;
      for (int64_t i = 0; i < count; i += 32)
        bad |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(_mm512_load_si512(values + i * 2), exponent), exponent);
      return bad == 0;
    }

    void finish() {
      alignas(64) float factor[kLanes], rows[kLanes * kLanes * 2];
      for (int64_t lane = 0; lane < used(); lane += kLanes) {
        const int64_t here = std::min(kLanes, used() - lane);
        for (int64_t i = 0; i < kLanes; ++i) factor[i] = i < here ? finish_sums(lane + i) : 0;
        float* o = w.o + lane / (2 * kLanes) * 2 * kLanes * a.d_v_ + lane % (2 * kLanes);
        const F f = _mm512_load_ps(factor);
        for (int64_t d = 0; d < a.d_v_; d += 32) {
          for (int64_t i = 0; i < 32; ++i) {
            float* at = o + (d + i) * 2 * kLanes;
            _mm512_store_ps(at, _mm512_load_ps(at) * f);
          }
          for (int64_t half = 0; half < 2; ++half)
            a.types_.kernels.transpose16(o + (d + half * 16) * 2 * kLanes, 128, rows + half * 16, 128);
          for (int64_t i = 0; i < here; ++i) {
            auto* to = reinterpret_cast<BF16*>(const_cast<char*>(row_of(a.args_.out, lane + i))) + d;
            Avx512::store(to, _mm512_load_ps(rows + i * 32));
            Avx512::store(to + 16, _mm512_load_ps(rows + i * 32 + 16));
          }
        }
      }
    }

    // writes the row's lse and returns what its sums are multiplied with
    float finish_sums(int64_t lane) const {
      const int64_t r = row + lane / a.group_, head = kv_head * a.group_ + lane % a.group_;
      float max = w.max[lane], sum = w.sum[lane], factor = 1;
      if (a.args_.sinks) {
        float sink;
        cpu::load(a.args_.sinks, head * a.args_.sinks.stride(0), 1, 1, &sink);
        const float top = std::max(max, sink);
        factor = exp_of(max - top);
        sum = sum * factor + exp_of(sink - top);
        max = top;
      }
      if (a.args_.lse)
        a.args_.lse.template as<float>()[r * a.args_.lse.stride(0) + head * a.args_.lse.stride(1)] =
            sum == 0 ? -std::numeric_limits<float>::infinity() : max + std::log(sum);
      return sum == 0 ? 0 : factor / sum;
    }
  };

  const ops::AttentionArgs& args_;
  AttentionTypes types_;
  int64_t d_k_ = args_.q.dim(2), d_v_ = args_.out.dim(2), kv_heads_ = args_.k.dim(1);
  int64_t group_ = args_.q.dim(1) / kv_heads_;
  int64_t tile_ = std::max<int64_t>(1, kTileRows / group_);  // queries
  int64_t tiles_ = (most_query_rows(args_) + tile_ - 1) / tile_;
};

#pragma GCC pop_options

}  // namespace pmetal::cpu
