// attention forward on AMX tiles. Over a layer of tile registers, so that it also runs on emulated ones. Its rows are
// the (query row, head) pairs of a key/value head; keys are taken in spans of 512 (attention_span.h).
//   many rows: a task is (sequence, key/value head, tile of up to 512 rows)
//     for each span that one of them sees:         K and V as B tiles, once
//       for each strip of 32 rows:
//         S [32, 512] = Q Kᵀ                       in steps of 32 keys, those that nobody sees left out
//         P = 2^(S − max)                          rounded to bf16
//         O [32, d_v] = P V                        summed up in tiles over the whole span
//   up to 16 rows, as in decode: memory is what takes the time. A task is (sequence, key/value head, one span or all)
//     Sᵀ [64, 16] = K Qᵀ                           K is read where it lies: 16 rows of it are an A tile
//     P as above;  O [16, d_v] += P V              for V two rows each are joined, which makes B tiles
// Both ways sum the same pairs in the same order: each score is one chain over d_k, each output one over the keys, so
// a row has the same bits in prefill, in any chunk of it and in decode. Speed: bench/kernels/cpu_gemm.md.
#pragma once

#include "backend/cpu/attention_blocks.h"
#include "backend/cpu/attention_span.h"
#include "backend/cpu/attention_vectors.h"
#include "backend/cpu/plain.h"

namespace pmetal::cpu {

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,avx2,f16c")

template <class Tiles>
class AttentionStrips {
 public:
  AttentionStrips(const GemmKernels& kernels, const ops::AttentionArgs& args, int64_t workers)
      : args_(args), types_(kernels, DType::kBF16), workers_(workers) {
    const int32_t *cu = args.cu_q.template as<int32_t>(), *keys = args.kv_len.template as<int32_t>();
    for (int64_t s = 0; s < sequences_; ++s) {
      const int64_t rows = (cu[s + 1] - cu[s]) * group_, spans = (keys[s] + kSpan - 1) / kSpan;
      (rows <= kFew ? few_ : many_) = std::max(rows <= kFew ? few_ : many_, rows);
      spans_ = std::max(spans_, spans);
      if (rows <= kFew) few_spans_ = std::max(few_spans_, spans);
    }
    while (tile_ > 2 * kStrip && sequences_ * kv_heads_ * ((many_ + tile_ - 1) / tile_) < 4 * workers) tile_ /= 2;
    queries_ = std::max<int64_t>(1, tile_ / group_);
    // side by side where that keeps all workers busy, or evens out what they do
    splits_ = few_spans_ > 1 && (few_spans_ >= 4 || sequences_ * kv_heads_ < 2 * workers) &&
              sequences_ * kv_heads_ < 16 * workers;
  }

  static bool takes(const ops::AttentionArgs& args) {
    return args.q.dtype == DType::kBF16 && args.q.dim(2) % 32 == 0 && args.out.dim(2) % 32 == 0;
  }
  int64_t workspace_bytes() const { return worker_bytes() * workers_ + parts_bytes(); }

  void run(const KernelContext& kernel) const {
    auto* space = static_cast<char*>(kernel.workspace);
    char* parts = space + worker_bytes() * workers_;
    const int64_t tiles = (many_ + queries_ * group_ - 1) / (queries_ * group_);
    const int64_t slots = std::max<int64_t>({tiles, splits_ ? few_spans_ : 1, 1});
    const auto one = [&](int64_t item, int worker) {
      const AttentionSequence sequence = sequence_at(args_, item / slots / kv_heads_);
      const int64_t head = item / slots % kv_heads_, slot = item % slots;
      const Scratch scratch = carve(space + worker * worker_bytes());
      if (is_few(sequence)) {
        const int64_t spans = (sequence.keys + kSpan - 1) / kSpan;
        if (sequence.rows == 0 || slot >= (splits_ ? std::max<int64_t>(spans, 1) : 1)) return;
        Tiles registers;
        registers.configure(16, 16);
        Few few{*this, scratch, registers, sequence, head};
        splits_ ? few.one_span(slot, part_at(parts, sequence.index, head, slot)) : few.all_spans();
        registers.release();
      } else {
        const int64_t first = (tiles - 1 - slot) * queries_;  // the longest first
        if (first < 0 || first >= sequence.rows) return;
        Tiles registers;
        registers.configure(16, 16);
        Many{*this,
             scratch,
             LaneTiles<Tiles>{registers},
             sequence,
             head,
             sequence.first_row + first,
             std::min(queries_, sequence.rows - first)}();
        registers.release();
      }
    };
    const int64_t items = sequences_ * kv_heads_ * slots;
    if (args_.q.dim(0) * group_ * kv_heads_ * std::max<int64_t>(args_.max_kv, 1) < 4096)
      for (int64_t i = 0; i < items; ++i) one(i, 0);
    else
      for_items(kernel, items, one);
    if (!splits_) return;
    const Scratch scratch = carve(space);
    for (int64_t s = 0; s < sequences_; ++s) {
      const AttentionSequence sequence = sequence_at(args_, s);
      for (int64_t head = 0; is_few(sequence) && sequence.rows > 0 && head < kv_heads_; ++head)
        merge_parts(sequence, head, parts, scratch);
    }
  }

 private:
  static constexpr int64_t kKeys = ops::kAttentionBlock, kStrip = 2 * kLanes, kFew = kLanes, kTile = 512;
  static constexpr int64_t kRow = kScoreRow * 4;          // bytes of a row of scores
  static constexpr int64_t kValuePanel = kSpan * 32 * 2;  // bytes of 32 columns of a span's values

  struct Scratch {
    char *q, *k, *v, *stage, *rows, *seen;
    float *s, *columns, *o, *o_span, *spare, *o_before, *o_after;
    RowSum* sums;
    int32_t *begin, *end;  // of the keys that a row sees
    int64_t bytes;
  };
  int64_t o_row() const { return d_v_ + 16; }  // floats
  Scratch carve(void* data) const {
    Carver c(data);
    const int64_t rows = std::max(kStrip, many_ > 0 ? padded(std::min(queries_ * group_, many_), kStrip) : 0);
    Scratch w;
    w.q = c.take<char>(kStrip * d_k_ * 2);
    w.k = c.take<char>(many_ > 0 ? kSpan * d_k_ * 2 : 0);
    w.v = c.take<char>((many_ > 0 ? kSpan : kKeys) * d_v_ * 2);
    w.stage = c.take<char>(kKeys * std::max(d_k_, d_v_) * 2);
    w.rows = c.take<char>(kKeys * d_v_ * 2);
    w.seen = c.take<char>(kSpan * d_v_ * 2);
    w.s = c.take<float>(kStrip * kScoreRow);
    w.columns = c.take<float>(kKeys * kLanes);
    w.o = c.take<float>(rows * o_row());
    w.o_span = c.take<float>(kStrip * o_row());
    w.spare = c.take<float>(kStrip * o_row());
    w.o_before = c.take<float>(kLanes * o_row());
    w.o_after = c.take<float>(kLanes * o_row());
    w.sums = c.take<RowSum>(rows);
    w.begin = c.take<int32_t>(rows);
    w.end = c.take<int32_t>(rows);
    w.bytes = c.used();
    return w;
  }
  int64_t worker_bytes() const { return carve(nullptr).bytes; }

  bool is_few(const AttentionSequence& sequence) const { return sequence.rows * group_ <= kFew; }

  // what a span gives to a few rows
  struct Part {
    RowSum* sums;
    float* o;
  };
  int64_t part_bytes() const { return padded(few_ * static_cast<int64_t>(sizeof(RowSum)), 64) + few_ * o_row() * 4; }
  int64_t parts_bytes() const { return splits_ ? sequences_ * kv_heads_ * few_spans_ * part_bytes() : 0; }
  Part part_at(char* parts, int64_t sequence, int64_t head, int64_t span) const {
    char* at = parts + ((sequence * kv_heads_ + head) * few_spans_ + span) * part_bytes();
    return {reinterpret_cast<RowSum*>(at),
            reinterpret_cast<float*>(at + padded(few_ * static_cast<int64_t>(sizeof(RowSum)), 64))};
  }
  void merge_parts(const AttentionSequence& sequence, int64_t head, char* parts, const Scratch& w) const {
    for (int64_t i = 0; i < sequence.rows * group_; ++i) {
      RowSum sum;
      for (int64_t n = 0; n * kSpan < sequence.keys; ++n) {
        const Part part = part_at(parts, sequence.index, head, n);
        merge_span(&sum, w.o, part.sums[i], part.o + i * o_row(), d_v_);
      }
      finish_row(sequence.first_row, head, i, sum, w.o);
    }
  }

  const char* row_of(const View& v, int64_t row, int64_t head, int64_t i) const {
    return static_cast<const char*>(v.data) +
           ((row + i / group_) * v.stride(0) + (head * group_ + i % group_) * v.stride(1)) * 2;
  }

  // writes the row and its lse
  void finish_row(int64_t first_row, int64_t kv_head, int64_t i, const RowSum& all, const float* o) const {
    const int64_t r = first_row + i / group_, head = kv_head * group_ + i % group_;
    float max = all.max, sum = all.sum, factor = 1;
    if (args_.sinks) {
      float sink;
      cpu::load(args_.sinks, head * args_.sinks.stride(0), 1, 1, &sink);
      sink *= kLog2E;
      const float top = std::max(max, sink);
      factor = std::exp2(max - top);
      sum = sum * factor + std::exp2(sink - top);
      max = top;
    }
    if (args_.lse)
      args_.lse.template as<float>()[r * args_.lse.stride(0) + head * args_.lse.stride(1)] =
          sum == 0 ? -std::numeric_limits<float>::infinity() : max * 0.693147180559945309f + std::log(sum);
    auto* to = const_cast<char*>(row_of(args_.out, first_row, kv_head, i));
    if (all.sum == 0)
      std::memset(to, 0, static_cast<size_t>(d_v_ * 2));
    else
      put_row(o, factor / sum, d_v_, to);
  }

  ScoreScale score_scale() const { return {args_.scale, args_.softcap}; }

  // from the first to the last key that one of the rows sees, each row's own written down
  KeyRange see(const AttentionSequence& sequence, int64_t row, int64_t n, const Scratch& w) const {
    KeyRange all{sequence.keys, 0};
    std::fill_n(w.begin, padded(n * group_, kStrip), 0);
    std::fill_n(w.end, padded(n * group_, kStrip), 0);
    for (int64_t i = 0; i < n; ++i) {
      const KeyRange seen = visible(args_.mask, sequence.query_of(row + i), sequence.keys);
      if (seen.begin >= seen.end) continue;
      std::fill_n(w.begin + i * group_, group_, static_cast<int32_t>(seen.begin));
      std::fill_n(w.end + i * group_, group_, static_cast<int32_t>(seen.end));
      all.begin = std::min(all.begin, seen.begin);
      all.end = std::max(all.end, seen.end);
    }
    return all;
  }
  // the same of rows [first, first + n) within a span of keys from `base` on
  static KeyRange seen_in(const Scratch& w, int64_t first, int64_t n, int64_t base) {
    KeyRange all{kSpan, 0};
    for (int64_t i = first; i < first + n; ++i) {
      const int64_t begin = std::max<int64_t>(w.begin[i] - base, 0), end = std::min<int64_t>(w.end[i] - base, kSpan);
      if (begin >= end) continue;
      all.begin = std::min(all.begin, begin);
      all.end = std::max(all.end, end);
    }
    return all;
  }
  static KeyRange row_in(const Scratch& w, int64_t i, int64_t base) {
    return {std::max<int64_t>(w.begin[i] - base, 0), std::min<int64_t>(w.end[i] - base, kSpan)};
  }

  // rows of values of a block with those cleared that a row does not see; where they lie
  const char* seen_rows(const char* rows, int64_t stride, const Scratch& w, int64_t i, int64_t base) const {
    for (int64_t j = 0; j < kKeys; ++j)
      if (base + j >= w.begin[i] && base + j < w.end[i])
        std::memcpy(w.rows + j * d_v_ * 2, rows + j * stride, static_cast<size_t>(d_v_ * 2));
      else
        std::memset(w.rows + j * d_v_ * 2, 0, static_cast<size_t>(d_v_ * 2));
    return w.rows;
  }

  struct Many {
    const AttentionStrips& a;
    Scratch w;
    LaneTiles<Tiles> tiles;
    AttentionSequence sequence;
    int64_t kv_head, row, n;
    bool finite = true;  // all values of the span

    int64_t used() const { return n * a.group_; }

    void operator()() {
      const KeyRange all = a.see(sequence, row, n, w);
      std::fill_n(w.sums, used(), RowSum{});
      const bool is_one = all.begin / kSpan == (all.end - 1) / kSpan;
      for (int64_t base = all.begin / kSpan * kSpan; base < all.end; base += kSpan) {
        pack_span(base, {std::max(all.begin - base, int64_t{0}), std::min(all.end - base, kSpan)});
        for (int64_t first = 0; first < used(); first += kStrip) strip(first, base, is_one);
      }
      if (!is_one || all.begin >= all.end)
        for (int64_t i = 0; i < used(); ++i) a.finish_row(row, kv_head, i, w.sums[i], w.o + i * a.o_row());
    }

    // A tiles [16 rows][32 d] of a strip
    void pack_queries(int64_t first) {
      for (int64_t i = 0; i < std::min(kStrip, used() - first); ++i) {
        const char* from = a.row_of(a.args_.q, row, kv_head, first + i);
        char* to = w.q + i / kLanes * kLanes * a.d_k_ * 2 + i % kLanes * 64;
        for (int64_t d = 0; d < a.d_k_; d += 32)
          _mm512_store_si512(to + d / 32 * kTileBytes, _mm512_loadu_si512(from + d * 2));
      }
    }

    // B tiles: of keys [16 pairs of d][16 keys], two of sixteen keys each side by side; of values [16 pairs of keys][16
    // d], 32 columns of all keys one after the other
    void pack_span(int64_t base, KeyRange range) {
      finite = true;
      for (int64_t j = range.begin / kKeys * kKeys; j < range.end; j += kKeys) {
        const int64_t b = (base + j) / kKeys, keys = std::min(kKeys, sequence.keys - base - j);
        const bool is_last = j + kKeys >= range.end;
        {
          const BlockRows k(a.types_, a.args_.k, key_block(a.args_, a.args_.k, sequence.index, kv_head, b), keys,
                            a.d_k_, w.stage);
          const Rows next = is_last ? Rows{} : rows_of(a.args_.k, a.d_k_, b + 1);
          for (int64_t i = 0; i < kKeys; i += kLanes) {
            next.prefetch(i, kLanes);
            for (int64_t d = 0; d < a.d_k_; d += 32)
              a.types_.kernels.transpose16(
                  k.data + (i * k.stride + d) * 2, k.stride * 2,
                  w.k + (j + i) / kUnit * kUnit * a.d_k_ * 2 + (d / 32 * 2 + i / kLanes % 2) * kTileBytes, 64);
          }
        }
        const BlockRows v(a.types_, a.args_.v, key_block(a.args_, a.args_.v, sequence.index, kv_head, b), keys, a.d_v_,
                          w.stage);
        const Rows next = is_last ? Rows{} : rows_of(a.args_.v, a.d_v_, b + 1);
        for (int64_t i = 0; i < kKeys; i += kUnit) {
          next.prefetch(i, kUnit);
          pack_unit_of_values(v.data + i * v.stride * 2, v.stride * 2, a.d_v_, w.v + (j + i) * 64, kValuePanel);
        }
        for (int64_t d = 0; d < a.d_v_; d += 32)
          finite = finite && all_finite(w.v + d / 32 * kValuePanel + j * 64, kKeys * 32);
      }
    }
    // of a block, to be fetched before their turn comes
    struct Rows {
      const char* data = nullptr;
      int64_t n = 0, stride = 0, bytes = 0;
      void prefetch(int64_t first, int64_t count) const {
        for (int64_t i = first; i < std::min(first + count, n); ++i)
          for (int64_t c = 0; c < bytes; c += 64) _mm_prefetch(data + i * stride + c, _MM_HINT_T0);
      }
    };
    Rows rows_of(const View& v, int64_t d, int64_t b) const {
      const KeyBlock at = key_block(a.args_, v, sequence.index, kv_head, b);
      return {static_cast<const char*>(v.data) + at.offset * 2, std::min(kKeys, sequence.keys - b * kKeys),
              at.stride * 2, d * 2};
    }

    void strip(int64_t first, int64_t base, bool is_one) {
      const int64_t here = std::min(kStrip, used() - first);
      const KeyRange seen = a.seen_in(w, first, here, base);
      if (seen.begin >= seen.end) {
        for (int64_t i = first; is_one && i < first + here; ++i) a.finish_row(row, kv_head, i, {}, w.o_span);
        return;
      }
      const int64_t u0 = seen.begin / kUnit, u1 = (seen.end + kUnit - 1) / kUnit;
      pack_queries(first);
      scores(u0, u1);
      RowSum sums[kStrip];
      const ScoreScale scale = a.score_scale();
      for (int64_t i = 0; i < here;) {
        const int64_t at = first + i;
        const bool is_pair = i + 1 < here && w.begin[at] == w.begin[at + 1] && w.end[at] == w.end[at + 1];
        for (int64_t n = at; n <= at + is_pair; ++n) fetch(n, is_one);
        const KeyRange own = a.row_in(w, at, base);
        const SoftmaxLine lines{w.s + i * kScoreRow, own.begin, own.end, u0, u1};
        is_pair ? softmax_lines<2>(lines, scale, sums + i) : softmax_lines<1>(lines, scale, sums + i);
        i += 1 + is_pair;
      }
      values(w.v, u0, u1, w.o_span);
      if (!finite) clean(first, here, base, u0, u1);
      for (int64_t i = 0; i < here; ++i) {
        float* o = w.o_span + i * a.o_row();
        if (is_one)
          a.finish_row(row, kv_head, first + i, sums[i], o);
        else
          merge_span(&w.sums[first + i], w.o + (first + i) * a.o_row(), sums[i], o, a.d_v_);
      }
    }

    // what the next strip reads and this one writes in place of row i
    void fetch(int64_t i, bool writes) const {
      if (i + kStrip < used()) {
        const char* next = a.row_of(a.args_.q, row, kv_head, i + kStrip);
        for (int64_t c = 0; c < a.d_k_ * 2; c += 64) _mm_prefetch(next + c, _MM_HINT_T0);
      }
      if (!writes) return;
      const char* out = a.row_of(a.args_.out, row, kv_head, i);
      for (int64_t c = 0; c < a.d_v_ * 2; c += 64) asm volatile("prefetchw %0" : : "m"(out[c]));
    }

    void scores(int64_t u0, int64_t u1) {
      const int64_t steps = a.d_k_ / 32;
      for (int64_t u = u0; u < u1; ++u) {
        tiles.zero();
        const char* k = w.k + u * kUnit * a.d_k_ * 2;
        for (int64_t d = 0; d < steps; ++d)
          tiles.multiply(w.q + d * kTileBytes, w.q + (steps + d) * kTileBytes, 64, k + 2 * d * kTileBytes,
                         k + (2 * d + 1) * kTileBytes);
        tiles.store(w.s + u * kUnit, kScoreRow);
      }
    }

    // o [32, d_v] = P V
    void values(const char* v, int64_t u0, int64_t u1, float* o) {
      for (int64_t d = 0; d < a.d_v_; d += 32, v += kValuePanel) {
        tiles.zero();
        for (int64_t u = u0; u < u1; ++u)
          tiles.multiply_once(reinterpret_cast<const char*>(w.s + u * kUnit), kRow, v + u * kUnit * 64);
        tiles.store(o + d, a.o_row());
      }
    }

    // 0 · NaN: what a row does not see must not reach it. Row by row, with the other values cleared.
    void clean(int64_t first, int64_t here, int64_t base, int64_t u0, int64_t u1) {
      for (int64_t i = 0; i < here; ++i) {
        for (int64_t j = u0 * kUnit / kKeys * kKeys; j < u1 * kUnit; j += kKeys) {
          const int64_t b = (base + j) / kKeys, keys = std::min(kKeys, sequence.keys - base - j);
          const BlockRows v(a.types_, a.args_.v, key_block(a.args_, a.args_.v, sequence.index, kv_head, b), keys,
                            a.d_v_, w.stage);
          const char* rows = a.seen_rows(v.data, v.stride * 2, w, first + i, base + j);
          for (int64_t k = 0; k < kKeys; k += kUnit)
            pack_unit_of_values(rows + k * a.d_v_ * 2, a.d_v_ * 2, a.d_v_, w.seen + (j + k) * 64, kValuePanel);
        }
        values(w.seen, u0, u1, w.spare);
        std::copy_n(w.spare + i * a.o_row(), a.d_v_, w.o_span + i * a.o_row());
      }
    }
  };

  // The lines that are read next, into L2 some kilobytes before they are needed: the keys of a span, then its values
  class Ahead {
   public:
    Ahead(const AttentionStrips& a, const AttentionSequence& sequence, int64_t head, int64_t base, KeyRange range)
        : a_(a), sequence_(sequence), head_(head), base_(base), range_(range) {
      j_ = range.begin / kKeys * kKeys;
      block();
    }
    static constexpr int64_t kStep = 1024;  // bytes
    void step() {
      if (end_ - at_ > kStep) {
#pragma GCC unroll 16
        for (int64_t i = 0; i < kStep; i += 64) _mm_prefetch(at_ + i, _MM_HINT_T1);
        at_ += kStep;
      } else {
        for (int64_t i = 0; i < kStep && left_ > 0; i += 64) {
          _mm_prefetch(at_, _MM_HINT_T1);
          at_ += 64;
          if (at_ == end_) row();
        }
      }
    }

   private:
    void block() {
      if (j_ >= range_.end) {
        if (of_values_) {
          left_ = 0;
          return;
        }
        of_values_ = true;
        j_ = range_.begin / kKeys * kKeys;
      }
      const View& v = of_values_ ? a_.args_.v : a_.args_.k;
      const KeyBlock at = key_block(a_.args_, v, sequence_.index, head_, (base_ + j_) / kKeys);
      at_ = static_cast<const char*>(v.data) + at.offset * 2;
      bytes_ = (of_values_ ? a_.d_v_ : a_.d_k_) * 2;
      left_ = std::min(kKeys, sequence_.keys - base_ - j_);
      stride_ = at.stride * 2;
      if (stride_ == bytes_) bytes_ *= left_, left_ = 1;
      end_ = at_ + bytes_;
      j_ += kKeys;
    }
    void row() {
      if (--left_ == 0) return block();
      at_ += stride_ - bytes_;
      end_ = at_ + bytes_;
    }
    const AttentionStrips& a_;
    const AttentionSequence& sequence_;
    int64_t head_, base_;
    KeyRange range_;
    int64_t j_, left_ = 0, bytes_ = 0, stride_ = 0;  // left: rows
    bool of_values_ = false;
    const char *at_ = nullptr, *end_ = nullptr;
  };

  struct Few {
    const AttentionStrips& a;
    Scratch w;
    Tiles& tiles;
    AttentionSequence sequence;
    int64_t kv_head;
    static constexpr int64_t kAhead = 16;      // steps of Ahead
    static constexpr int64_t kVectorRows = 4;  // up to which P V is left to vector registers

    int64_t used() const { return sequence.rows * a.group_; }

    void one_span(int64_t span, const Part& part) {
      pack_queries();
      a.see(sequence, sequence.first_row, sequence.rows, w);
      this->span(span * kSpan, part);
    }
    void all_spans() {
      pack_queries();
      const KeyRange all = a.see(sequence, sequence.first_row, sequence.rows, w);
      RowSum sums[kFew], of_span[kFew];
      for (int64_t base = all.begin / kSpan * kSpan; base < all.end; base += kSpan) {
        span(base, {of_span, w.o_span});
        for (int64_t i = 0; i < used(); ++i)
          merge_span(&sums[i], w.o + i * a.o_row(), of_span[i], w.o_span + i * a.o_row(), a.d_v_);
      }
      for (int64_t i = 0; i < used(); ++i) a.finish_row(sequence.first_row, kv_head, i, sums[i], w.o + i * a.o_row());
    }

    // B tiles [16 pairs of d][16 rows]
    void pack_queries() {
      alignas(64) char rows[kLanes * 64] = {};
      for (int64_t d = 0; d < a.d_k_; d += 32) {
        for (int64_t i = 0; i < used(); ++i)
          _mm512_store_si512(rows + i * 64,
                             _mm512_loadu_si512(a.row_of(a.args_.q, sequence.first_row, kv_head, i) + d * 2));
        a.types_.kernels.transpose16(rows, 64, w.q + d / 32 * kTileBytes, 64);
      }
    }

    void span(int64_t base, const Part& part) {
      const KeyRange seen = a.seen_in(w, 0, used(), base);
      std::fill_n(part.sums, used(), RowSum{});
      if (seen.begin >= seen.end) return;
      Ahead ahead(a, sequence, kv_head, base, seen);
      for (int64_t i = 0; i < kAhead; ++i) ahead.step();
      const int64_t j0 = seen.begin / kKeys * kKeys, j1 = padded(seen.end, kKeys);
      for (int64_t j = j0; j < j1; j += kKeys) scores(base, j, ahead);
      const ScoreScale scale = a.score_scale();
      for (int64_t i = 0; i < used(); ++i) {
        const KeyRange own = a.row_in(w, i, base);
        softmax_lines<1>({w.s + i * kScoreRow, own.begin, own.end, j0 / kUnit, j1 / kUnit}, scale, part.sums + i);
      }
      std::fill_n(part.o, used() * a.o_row(), 0.f);
      if (used() <= kVectorRows) {
        {
          const FlushSubnormals scope;
          for (int64_t j = j0; j < j1; j += kKeys) values(base, j, part.o, ahead);
        }
        for (int64_t i = 0; i < used(); ++i) to_tile_order(part.o + i * a.o_row(), a.d_v_);
        return;
      }
      const auto rows = static_cast<int>(used());
      tiles.configure(rows, rows);  // of P and O: the products take a third of the time
      for (int64_t j = j0; j < j1; j += kKeys) values(base, j, part.o, ahead);
      tiles.configure(16, 16);
    }

    void scores(int64_t base, int64_t j, Ahead& ahead) {
      const int64_t keys = std::min(kKeys, sequence.keys - base - j);
      const BlockRows k(a.types_, a.args_.k, key_block(a.args_, a.args_.k, sequence.index, kv_head, (base + j) / kKeys),
                        keys, a.d_k_, w.stage);
      const int64_t stride = k.stride * 2;
      tiles.template zero<0>();
      tiles.template zero<1>();
      tiles.template zero<2>();
      tiles.template zero<3>();
      for (int64_t d = 0; d < a.d_k_; d += 32) {
        const char* rows = k.data + d * 2;
        tiles.template load<6>(w.q + d / 32 * kTileBytes, 64);
        tiles.template load<4>(rows, stride);
        tiles.template dot<0, 4, 6>();
        ahead.step();
        tiles.template load<5>(rows + 16 * stride, stride);
        tiles.template dot<1, 5, 6>();
        ahead.step();
        tiles.template load<4>(rows + 32 * stride, stride);
        tiles.template dot<2, 4, 6>();
        ahead.step();
        tiles.template load<5>(rows + 48 * stride, stride);
        tiles.template dot<3, 5, 6>();
        ahead.step();
      }
      char* columns = reinterpret_cast<char*>(w.columns);
      tiles.template store<0>(columns, 64);
      tiles.template store<1>(columns + kTileBytes, 64);
      tiles.template store<2>(columns + 2 * kTileBytes, 64);
      tiles.template store<3>(columns + 3 * kTileBytes, 64);
      for (int64_t i = 0; i < 4; ++i)
        a.types_.kernels.transpose16(columns + i * kTileBytes, 64, w.s + j + i * 16, kScoreRow * 4);
    }

    // o [rows, d_v] += P V of a block
    void values(int64_t base, int64_t j, float* o, Ahead& ahead) {
      const int64_t keys = std::min(kKeys, sequence.keys - base - j);
      const BlockRows v(a.types_, a.args_.v, key_block(a.args_, a.args_.v, sequence.index, kv_head, (base + j) / kKeys),
                        keys, a.d_v_, w.stage);
      bool partial = false;
      for (int64_t i = 0; i < used(); ++i) partial |= w.begin[i] > base + j || w.end[i] < base + j + keys;
      const bool clean = partial && !finite(v.data, v.stride * 2);
      if (!clean) return add(j, v.data, v.stride * 2, o, ahead);
      std::copy_n(o, used() * a.o_row(), w.o_before);  // as in Many::clean
      for (int64_t i = 0; i < used(); ++i) {
        std::copy_n(w.o_before, used() * a.o_row(), w.o_after);
        add(j, a.seen_rows(v.data, v.stride * 2, w, i, base + j), a.d_v_ * 2, w.o_after, ahead);
        std::copy_n(w.o_after + i * a.o_row(), a.d_v_, o + i * a.o_row());
      }
    }
    bool finite(const char* rows, int64_t stride) const {
      bool all = true;
      for (int64_t j = 0; j < kKeys; ++j) all = all && all_finite(rows + j * stride, a.d_v_);
      return all;
    }

    void add(int64_t j, const char* v, int64_t stride, float* o, Ahead& ahead) {
      used() <= kVectorRows ? add_by_vectors(j, v, stride, o, ahead) : add_by_tiles(j, v, stride, o, ahead);
    }
    void add_by_vectors(int64_t j, const char* v, int64_t stride, float* o, Ahead& ahead) {
      for (int64_t u = 0; u < kKeys; u += kUnit) {
        alignas(64) float factors[kVectorRows * kFactorsOfUnit];
        for (int64_t i = 0; i < used(); ++i) widen_unit(w.s + i * kScoreRow + j + u, factors + i * kFactorsOfUnit);
        int64_t i = 0;
        for (; i + 2 <= used(); i += 2)
          add_unit_of_values<2>(factors + i * kFactorsOfUnit, kFactorsOfUnit, v + u * stride, stride, a.d_v_,
                                o + i * a.o_row(), a.o_row(), ahead);
        if (i < used())
          add_unit_of_values<1>(factors + i * kFactorsOfUnit, kFactorsOfUnit, v + u * stride, stride, a.d_v_,
                                o + i * a.o_row(), a.o_row(), ahead);
      }
    }

    void add_by_tiles(int64_t j, const char* v, int64_t v_stride, float* o, Ahead& ahead) {
      for (int64_t i = 0; i < kKeys; i += kUnit)
        for (int64_t d = 0; d < a.d_v_; d += 32) {
          pack_unit_of_values(v + i * v_stride + d * 2, v_stride, 32, w.v + (i * a.d_v_ + d * kUnit) * 2, 0);
          ahead.step();
        }
      const char* p = reinterpret_cast<const char*>(w.s + j);
      const int64_t stride = a.o_row() * 4;
      for (int64_t d = 0; d < a.d_v_; d += 32) {
        char* c = reinterpret_cast<char*>(o + d);
        tiles.template load<0>(c, stride);
        tiles.template load<1>(c + 64, stride);
        for (int64_t u = 0; u < kKeys / kUnit; ++u) {
          const char* at = w.v + u * kUnit * a.d_v_ * 2 + d / 16 * kTileBytes;
          tiles.template load<4>(p + u * kUnit * 4, kRow);
          tiles.template load<6>(at, 64);
          tiles.template dot<0, 4, 6>();
          tiles.template load<7>(at + kTileBytes, 64);
          tiles.template dot<1, 4, 7>();
          ahead.step();
        }
        tiles.template store<0>(c, stride);
        tiles.template store<1>(c + 64, stride);
      }
    }
  };

  const ops::AttentionArgs& args_;
  AttentionTypes types_;
  int64_t workers_, sequences_ = args_.kv_len.dim(0);
  int64_t d_k_ = args_.q.dim(2), d_v_ = args_.out.dim(2), kv_heads_ = args_.k.dim(1);
  int64_t group_ = args_.q.dim(1) / kv_heads_;
  int64_t few_ = 0, many_ = 0;          // the most rows of a sequence of either kind
  int64_t spans_ = 0, few_spans_ = 0;   // the most spans of one
  int64_t tile_ = kTile, queries_ = 1;  // rows and queries of a task
  bool splits_ = false;                 // few rows: a span is a task
};

#pragma GCC pop_options

}  // namespace pmetal::cpu
