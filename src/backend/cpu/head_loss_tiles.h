// head_loss on AMX tiles in one walk over the vocabulary (frozen heads; what is computed: head_loss_flash.cc). A task
// is a block of rows with a slice of the vocabulary, of a fixed cut; no row of logits ever goes to memory:
//   for each kDepth vocabulary rows of the slice:
//     for each 32 of them:   Z = H Wᵀ [rows, 32]  in groups of 32 rows; while the tiles work on the next group the
//                            vectors turn the last into E = 2^(Z log₂e − ref), rounded to bf16 as A tiles
//     for each 32 columns of W:  G [rows, 32] += E W    W's tiles are turned round on the way
//   then sums and G of all slices meet:  dH = row_scale · (G (1 + 2 z_loss · lse) / Σ + (p_label − 1) W[label])
// The reference of a row is its label's logit, found beforehand, as a whole power of two: so slices agree on it, and
// where a logit lies 2^64 above it, what was summed before is scaled without rounding. The label's own e is left out of
// E, so the difference p − 1 is not rounded to bf16. Bits of a row depend on the row alone: each sum is one chain over
// the slice, and slices meet in order.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "backend/cpu/attention_blocks.h"
#include "backend/cpu/lane_tiles.h"
#include "backend/cpu/plain.h"
#include "ops/head_loss.h"

namespace pmetal::cpu {

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,avx2,f16c")

template <class Tiles, int64_t kDepth = 512, int64_t kBlock = 256>
class HeadLossTiles {
 public:
  HeadLossTiles(const GemmKernels& kernels, const ops::HeadLossArgs& args, int64_t workers)
      : args_(args), kernels_(kernels), workers_(workers) {}

  static const char* decline(const ops::HeadLossArgs& args) {
    if (!args.weight || args.dweight) return "takes frozen heads alone";
    if (args.label_smoothing > 0) return "no label smoothing";
    if (args.hidden.dtype != DType::kBF16 || args.hidden.stride(-1) != 1) return "takes dense bf16 alone";
    if (args.weight->format->name != "bf16_tile") return "takes bf16_tile alone";
    if (args.nll.dtype != DType::kF32 || (args.entropy && args.entropy.dtype != DType::kF32))
      return "results must be f32";
    const DType to = args.dhidden ? args.dhidden.dtype : DType::kBF16;
    if (args.dhidden && (args.dhidden.stride(-1) != 1 || (to != DType::kBF16 && to != DType::kF32)))
      return "dhidden must be dense bf16 or f32";
    return nullptr;
  }
  int64_t workspace() const { return carve(nullptr).bytes; }

  void run(const KernelContext& kernel) const {
    const Scratch w = carve(kernel.workspace);
    for (int64_t first = 0; first < args_.hidden.dim(0); first += pass_) Pass{*this, kernel, w, first}();
  }

 private:
  using F = __m512;
  static constexpr int64_t kGroup = 32;                   // rows of a C of 2 × 2 tiles
  static constexpr int64_t kGroupBytes = 4 * kTileBytes;  // of it
  static constexpr int64_t kPanel = 32;                   // vocabulary rows, or columns of W, at a time
  static constexpr int64_t kSteps = 16;                   // of depth 32, of a panel of B that stays in L1
  static constexpr int64_t kPanelBytes = 2 * kSteps * kTileBytes;
  static constexpr int64_t kSlice = 16384;         // of the vocabulary: fixes the bits
  static constexpr int64_t kPass = 1024;           // rows that share the partial sums of all slices
  static constexpr int64_t kPassBytes = 64 << 20;  // of those, at most or so
  static constexpr float kHigh = 64;               // log₂ of the largest e
  static constexpr float kLog2E = 1.44269504088896341f;

  // what a slice found in a row: Σ e, Σ e · log₂ e, both beside 2^ref
  struct Found {
    float ref, sum, weighted;
    int32_t is_wrong;  // a logit lies above the label's, or before it and beside it
  };
  struct Row {
    int32_t label;
    float at_label, ref;         // the label's logit; its log₂, whole
    float weight, label_weight;  // of G and of W[label] in the gradient
  };
  struct Scratch {
    char *hidden, *labels;  // [pass, in] as A tiles; rows of W at the labels
    Row* rows;
    Found* found;     // [slice][pass]
    float* gradient;  // [slice][column panel][group][32][32]
    float* weights;   // [slice][pass]
    char* own;        // per worker
    int64_t own_bytes, bytes;
  };
  struct Own {
    char *e, *b;
    float *half, *z, *sums, *ref, *limit;
    int64_t bytes;
  };

  Scratch carve(void* data) const {
    Carver c(data);
    Scratch w;
    w.hidden = c.take<char>(pass_ * in_ * 2);
    w.labels = c.take<char>(pass_ * in_ * 2);
    w.rows = c.take<Row>(pass_);
    w.found = c.take<Found>(slices_ * pass_);
    w.gradient = c.take<float>(wants_gradient_ ? slices_ * pass_ * in_ : 0);
    w.weights = c.take<float>(slices_ * pass_);
    w.own_bytes = carve_own(nullptr).bytes;
    w.own = c.take<char>(workers_ * w.own_bytes);
    w.bytes = c.used();
    return w;
  }
  Own carve_own(void* data) const {
    Carver c(data);
    Own w;
    w.e = c.take<char>(block_ * kDepth * 2);
    w.b = c.take<char>(2 * kPanelBytes);
    w.half = c.take<float>(block_ * kPanel);
    w.z = c.take<float>(2 * kGroup * kPanel);
    w.sums = c.take<float>(block_ * 2 * kLanes);
    w.ref = c.take<float>(block_);
    w.limit = c.take<float>(block_);
    w.bytes = c.used();
    return w;
  }

  const char* tile_of_weight(int64_t row, int64_t column) const {
    return weight_ + (row / 16 * tiles_in_ + column / 32) * kTileBytes;
  }

  // raw logits to what the loss is of, and the slope between
  template <bool kShaped>
  F shape(F z, F* slope) const {
    if constexpr (!kShaped) return z;
    z = _mm512_mul_ps(z, Avx512::all(args_.logit_scale));
    if (args_.softcap <= 0) return z;
    const F e = Avx512::exp(_mm512_mul_ps(z, Avx512::all(2 / args_.softcap)));
    const F t = Avx512::all(1) - Avx512::all(2) / (e + Avx512::all(1));
    *slope = Avx512::all(1) - t * t;
    return _mm512_mul_ps(t, Avx512::all(args_.softcap));
  }

  // One row block of one slice
  template <bool kShaped>
  struct Task {
    const HeadLossTiles& a;
    const Scratch& shared;
    Own w;
    Tiles& tiles;
    int64_t row, n_groups;    // of the pass
    int64_t begin, end;       // of the vocabulary
    float* gradient;          // [column panel][group][32][32]
    int64_t gradient_stride;  // between column panels
    int64_t chunk = 0, width = 0;

    // the group whose logits lie in w.z, on its way to e
    struct Pending {
      const float* z = nullptr;
      int64_t row = 0, at = kGroup, column = 0;  // of the block; the next of its rows; first of the vocabulary
      char* e = nullptr;
    } pending = {};
    int64_t turn = 0;

    void operator()(Found* found) {
      for (int64_t r = 0; r < n_groups * kGroup; ++r) {
        const Row& of = shared.rows[row + r];
        w.ref[r] = of.ref;
        w.limit[r] = a.args_.correct && of.label >= 0 ? of.at_label : high(of.ref);
        found[r] = {of.ref, 0, 0, 0};
      }
      std::fill_n(w.sums, n_groups * kGroup * 2 * kLanes, 0.f);
      for (chunk = begin; chunk < end; chunk += kDepth) {
        width = std::min(kDepth, end - chunk);
        for (int64_t v = 0; v < width; v += kPanel) logits(v, found);
        while (pending.at < kGroup) next_row(found);
        if (a.wants_gradient_)
          for (int64_t c = 0; c < a.in_; c += kPanel) add_gradient(c);
      }
      for (int64_t r = 0; r < n_groups * kGroup; ++r) {
        found[r].ref = w.ref[r];
        found[r].sum = Avx512::sum(_mm512_load_ps(w.sums + r * 2 * kLanes));
        found[r].weighted = Avx512::sum(_mm512_load_ps(w.sums + (r * 2 + 1) * kLanes));
      }
    }

    static float high(float ref) { return (ref + kHigh) / kLog2E; }

    template <class Between>
    void steps(const char* x, int64_t x_stride, const char* b0, const char* b1, int64_t n, Between&& between) {
      for (int64_t i = 0; i < n; ++i) {
        between(i);
        tiles.template load<6>(b0, 64);
        tiles.template stream_load<4>(x, 64);
        tiles.template dot<0, 4, 6>();
        tiles.template load<7>(b1, 64);
        tiles.template dot<1, 4, 7>();
        tiles.template stream_load<5>(x + x_stride, 64);
        tiles.template dot<2, 5, 6>();
        tiles.template dot<3, 5, 7>();
        x += kTileBytes, b0 += kTileBytes, b1 += kTileBytes;
      }
    }

    // the 32 rows of the vocabulary from chunk + v on
    void logits(int64_t v, Found* found) {
      LaneTiles<Tiles> c{tiles};
      const int64_t row_bytes = a.tiles_in_ * kTileBytes;  // of 16 rows
      const char* w0 = a.tile_of_weight(chunk + v, 0);
      const char* w1 = chunk + v + 16 < end ? w0 + row_bytes : w0;
      const char* x = shared.hidden + row / 16 * row_bytes;
      for (int64_t k = 0; k < a.tiles_in_; k += kSteps) {
        const int64_t n = std::min(kSteps, a.tiles_in_ - k);
        const bool is_last = k + kSteps >= a.tiles_in_;
        // what comes next, into L2
        const char *next0 = w0 + (k + kSteps) * kTileBytes, *next1 = w1 + (k + kSteps) * kTileBytes;
        if (is_last) next0 = w1 + row_bytes, next1 = next0 + row_bytes;
        int64_t left = !is_last ? std::min(kSteps, a.tiles_in_ - k - kSteps) * kTileBytes
                       : chunk + v + 2 * kPanel <= a.vocabulary_ ? std::min(kSteps, a.tiles_in_) * kTileBytes
                                                                 : 0;
        const int64_t lines = (left / 64 + n_groups * n - 1) / (n_groups * n);
        const auto prefetch = [&] {
          for (int64_t i = 0; i < lines && left > 0; ++i) {
            _mm_prefetch(next0, _MM_HINT_T1);
            _mm_prefetch(next1, _MM_HINT_T1);
            next0 += 64, next1 += 64, left -= 64;
          }
        };
        for (int64_t g = 0; g < n_groups; ++g) {
          float* half = w.half + g * kGroup * kPanel;
          if (k == 0)
            c.zero();
          else
            c.load(half);
          const char* from = x + g * 2 * row_bytes + k * kTileBytes;
          steps(from, row_bytes, w0 + k * kTileBytes, w1 + k * kTileBytes, n, [&](int64_t) {
            prefetch();
            if (pending.at < kGroup) next_row(found), next_row(found);
          });
          if (!is_last) {
            c.store(half);
            continue;
          }
          while (pending.at < kGroup) next_row(found);
          float* z = w.z + turn * kGroup * kPanel;
          turn ^= 1;
          c.store(z);
          pending = {z, g * kGroup, 0, v, w.e + (g * 2 * (kDepth / 32) + v / 32) * kTileBytes};
        }
      }
    }

    // one row of 32 logits to e
    __attribute__((always_inline)) void next_row(Found* found) {
      const int64_t at = pending.at++, r = pending.row + at;
      const float* from = pending.z + at * kPanel;
      F slope[2], z[2];
      for (int64_t i = 0; i < 2; ++i) z[i] = a.template shape<kShaped>(_mm512_load_ps(from + i * kLanes), &slope[i]);
      if (const int64_t n = width - pending.column; __builtin_expect(n < kPanel, 0))
        for (int64_t i = 0; i < 2; ++i)
          z[i] = Avx512::between(z[i], 0, n - i * kLanes, -std::numeric_limits<float>::infinity());
      const F limit = _mm512_set1_ps(w.limit[r]);
      if (__builtin_expect(static_cast<bool>(_mm512_cmp_ps_mask(z[0], limit, _CMP_NLT_UQ) |
                                             _mm512_cmp_ps_mask(z[1], limit, _CMP_NLT_UQ)),
                           0))
        meet_limit(r, z, found[r]);
      const F ref = _mm512_set1_ps(w.ref[r]);
      F e[2], x[2];
      for (int64_t i = 0; i < 2; ++i) {
        // NaN stays
        x[i] = _mm512_max_ps(Avx512::all(-125.f), _mm512_fmsub_ps(z[i], Avx512::all(kLog2E), ref));
        e[i] = Avx512::exp2(x[i]);
      }
      float* sums = w.sums + r * 2 * kLanes;
      _mm512_store_ps(sums, _mm512_load_ps(sums) + (e[0] + e[1]));
      _mm512_store_ps(sums + kLanes, Avx512::fma(e[0], x[0], Avx512::fma(e[1], x[1], _mm512_load_ps(sums + kLanes))));
      if (!a.wants_gradient_) return;
      if constexpr (kShaped)
        if (a.args_.softcap > 0)
          for (int64_t i = 0; i < 2; ++i) e[i] = e[i] * slope[i];
      char* to = pending.e + (at / 16 * (kDepth / 32)) * kTileBytes + at % 16 * 64;
      _mm512_store_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(e[1], e[0])));
      const int64_t own = shared.rows[row + r].label - (chunk + pending.column);
      if (__builtin_expect(static_cast<uint64_t>(own) < kPanel, 0)) reinterpret_cast<uint16_t*>(to)[own] = 0;
    }

    // A logit of the row reaches the label's, or is so high that the reference must follow, or is NaN.
    __attribute__((noinline)) void meet_limit(int64_t r, const F* z, Found& found) {
      const Row& of = shared.rows[row + r];
      alignas(64) float logits[kPanel];
      for (int64_t i = 0; i < 2; ++i) _mm512_store_ps(logits + i * kLanes, z[i]);
      float top = -std::numeric_limits<float>::infinity();
      for (int64_t i = 0; i < kPanel; ++i) {
        const int64_t at = chunk + pending.column + i;
        const bool below = logits[i] < of.at_label || (logits[i] == of.at_label && at >= of.label);
        if (!below) found.is_wrong = 1;
        if (logits[i] > top && std::isfinite(logits[i])) top = logits[i];
      }
      if (found.is_wrong) w.limit[r] = high(w.ref[r]);
      const float over = std::ceil(top * kLog2E - w.ref[r]);
      if (!(over >= kHigh)) return;
      w.ref[r] += over;
      w.limit[r] = high(w.ref[r]);
      const float factor = std::ldexp(1.f, -static_cast<int>(std::min(over, 1000.f)));
      float* sums = w.sums + r * 2 * kLanes;
      const F f = Avx512::all(factor), sum = _mm512_load_ps(sums);
      const F weighted = _mm512_load_ps(sums + kLanes) - Avx512::all(over) * sum;
      _mm512_store_ps(sums + kLanes, weighted * f);
      _mm512_store_ps(sums, sum * f);
      if (!a.wants_gradient_) return;
      char* e = w.e + (r / 16 * (kDepth / 32)) * kTileBytes + r % 16 * 64;
      for (int64_t v = 0; v < pending.column; v += kPanel, e += kTileBytes)
        for (int64_t i = 0; i < kPanel; i += kLanes)
          Avx512::store(reinterpret_cast<BF16*>(e) + i, Avx512::load(reinterpret_cast<BF16*>(e) + i) * f);
      if (chunk == begin) return;
      for (int64_t c = 0; c < a.in_; c += kPanel) {
        float* g = gradient + c / kPanel * gradient_stride + r * kPanel;
        for (int64_t i = 0; i < kPanel; i += kLanes) _mm512_store_ps(g + i, _mm512_load_ps(g + i) * f);
      }
    }

    // 32 columns of G += E W
    void add_gradient(int64_t column) {
      LaneTiles<Tiles> c{tiles};
      float* g0 = gradient + column / kPanel * gradient_stride;
      const int64_t row_bytes = a.tiles_in_ * kTileBytes;
      for (int64_t v = 0; v < width; v += kSteps * kPanel) {
        const int64_t n = (std::min(kSteps * kPanel, width - v) + kPanel - 1) / kPanel;
        char* b = w.b;
        const char* from = a.tile_of_weight(chunk + v, column);
        for (int64_t i = 0; i < n; ++i) {
          turn_round(from + 2 * i * row_bytes, b + i * kTileBytes);
          if (chunk + v + i * kPanel + 16 < end)
            turn_round(from + (2 * i + 1) * row_bytes, b + i * kTileBytes + 512);
          else
            for (char* half : {b + i * kTileBytes + 512, b + (kSteps + i) * kTileBytes + 512})
              std::memset(half, 0, 512);
        }
        const char* next = column + kPanel < a.in_ ? from + kTileBytes : nullptr;
        const int64_t stride = row_bytes, lines = 2 * n * 16, per_step = (lines + n_groups * n - 1) / (n_groups * n);
        int64_t left = next ? lines : 0, in_tile = 0;
        for (int64_t g = 0; g < n_groups; ++g) {
          float* to = g0 + g * kGroup * kPanel;
          if (chunk == begin && v == 0)
            c.zero();
          else
            c.load(to);
          steps(w.e + (g * 2 * (kDepth / 32) + v / 32) * kTileBytes, kDepth / 32 * kTileBytes, b,
                b + kSteps * kTileBytes, n, [&](int64_t i) {
                  for (int64_t l = 0; l < per_step && left > 0; ++l, --left) {
                    _mm_prefetch(next + in_tile, _MM_HINT_T1);
                    if ((in_tile += 64) == kTileBytes) in_tile = 0, next += stride;
                  }
                  if (g + 1 < n_groups && i < 16 && !(chunk == begin)) {
                    const char* ahead = reinterpret_cast<const char*>(to + kGroup * kPanel) + i * 256;
                    for (int64_t l = 0; l < 256; l += 64) asm volatile("prefetchw %0" : : "m"(ahead[l]));
                  }
                });
          c.store(to);
        }
      }
    }
    void turn_round(const char* tile, char* to) { a.kernels_.retile(tile, to, to + kSteps * kTileBytes); }
  };

  // Up to pass_ rows: what all tasks need, the tasks, what comes of them.
  struct Pass {
    const HeadLossTiles& a;
    const KernelContext& kernel;
    const Scratch& w;
    int64_t first;
    int64_t m = std::min(a.pass_, a.args_.hidden.dim(0) - first), groups = (m + kGroup - 1) / kGroup;

    void operator()() const {
      for_items(kernel, groups * 2, [&](int64_t g, int) { prepare(g); });
      const int64_t blocks = (m + a.block_ - 1) / a.block_;
      for_items(kernel, blocks * a.slices_, [&](int64_t i, int worker) {
        a.shapes_ ? slice<true>(i / blocks, i % blocks, worker) : slice<false>(i / blocks, i % blocks, worker);
      });
      for_items(kernel, groups * 2, [&](int64_t g, int) {
        for (int64_t r = g * 16; r < std::min(m, g * 16 + 16); ++r) finish(r);
      });
      if (a.wants_gradient_)
        for_items(kernel, groups * (a.in_ / kPanel), [&](int64_t i, int) { put(i % groups, i / groups * kPanel); });
    }

    int64_t label_of(int64_t r) const {
      const int64_t label = a.args_.labels.template as<int32_t>()[(first + r) * a.args_.labels.stride(0)];
      PMETAL_ASSERT(label >= 0 && label < a.vocabulary_, "label {} of a vocabulary of {}", label, a.vocabulary_);
      return label;
    }

    // sixteen rows: hidden states as A tiles, rows of W at their labels, and the product of the two
    void prepare(int64_t g) const {
      const int64_t row = g * 16, n = std::clamp<int64_t>(m - row, 0, 16), group_bytes = 16 * a.in_ * 2;
      char* hidden = w.hidden + g * group_bytes;
      char* labels = w.labels + row * a.in_ * 2;
      if (n < 16) std::memset(hidden, 0, static_cast<size_t>(group_bytes));
      const View& h = a.args_.hidden;
      const AOperand operand{DType::kBF16, static_cast<const char*>(h.data), h.stride(0) * 2, false};
      if (n > 0) pack_a(a.kernels_, operand, APacked{DType::kBF16, true, a.in_}, first + row, n, 0, h.dim(1), hidden);
      std::memset(labels + n * a.in_ * 2, 0, static_cast<size_t>((16 - n) * a.in_ * 2));
      for (int64_t r = 0; r < n; ++r) {
        const int64_t label = label_of(row + r);
        const char* from = a.tile_of_weight(label, 0) + label % 16 * 4;
        for (int64_t p = 0; p < a.in_ / 2; ++p) std::memcpy(labels + (r * a.in_ + 2 * p) * 2, from + p * 64, 4);
      }
      Tiles tiles;
      tiles.configure(16, 16);
      tiles.template zero<0>();
      alignas(64) char b[kTileBytes];
      alignas(64) float c[16 * 16] = {};
      for (int64_t k = 0; k < a.tiles_in_; ++k) {
        a.kernels_.transpose16(labels + k * 64, a.in_ * 2, b, 64);
        tiles.template load<6>(b, 64);
        tiles.template load<4>(hidden + k * kTileBytes, 64);
        tiles.template dot<0, 4, 6>();
      }
      tiles.template store<0>(reinterpret_cast<char*>(c), 64);
      tiles.release();
      for (int64_t r = 0; r < 16; ++r) {
        Row& of = w.rows[row + r];
        of = {-1, 0, 0, 0, 0};
        if (r >= n) continue;
        F slope;
        const F raw = Avx512::all(c[r * 17]);
        of.label = static_cast<int32_t>(label_of(row + r));
        of.at_label = _mm512_cvtss_f32(a.shapes_ ? a.shape<true>(raw, &slope) : raw);
        const float log2 = of.at_label * kLog2E;
        if (std::abs(log2) < 0x1p20f) of.ref = std::rint(log2);
      }
    }

    template <bool kShaped>
    void slice(int64_t s, int64_t block, int worker) const {
      const int64_t row = block * a.block_, n = std::min(a.block_, groups * kGroup - row), begin = s * kSlice;
      Tiles tiles;
      tiles.configure(16, 16);
      Task<kShaped>{a,
                    w,
                    a.carve_own(w.own + worker * w.own_bytes),
                    tiles,
                    row,
                    n / kGroup,
                    begin,
                    std::min(begin + kSlice, a.vocabulary_),
                    w.gradient + s * a.pass_ * a.in_ + row * kPanel,
                    a.pass_ * kPanel}(w.found + s * a.pass_ + row);
      tiles.release();
    }

    void finish(int64_t r) const {
      const auto found = [&](int64_t s) -> const Found& { return w.found[s * a.pass_ + r]; };
      float ref = found(0).ref;
      for (int64_t s = 1; s < a.slices_; ++s) ref = std::max(ref, found(s).ref);
      double sum = 0, weighted = 0;
      bool is_wrong = false;
      for (int64_t s = 0; s < a.slices_; ++s) {
        const Found& f = found(s);
        const float factor = std::exp2(f.ref - ref);
        w.weights[s * a.pass_ + r] = factor;
        sum += f.sum * factor;
        weighted += (f.weighted + (f.ref - ref) * f.sum) * factor;
        is_wrong |= f.is_wrong != 0;
      }
      constexpr double kLn2 = 0.69314718055994530942;
      Row& of = w.rows[r];
      const ops::HeadLossArgs& args = a.args_;
      const int64_t row = first + r;
      const double log_sum = std::log(sum), lse = ref * kLn2 + log_sum;
      args.nll.template as<float>()[row * args.nll.stride(0)] =
          static_cast<float>(lse - of.at_label + args.z_loss * lse * lse);
      if (args.entropy)
        args.entropy.template as<float>()[row * args.entropy.stride(0)] =
            static_cast<float>(log_sum - kLn2 * weighted / sum);
      if (args.correct)
        args.correct.template as<uint8_t>()[row * args.correct.stride(0)] = !is_wrong && !std::isnan(sum);
      if (!a.wants_gradient_) return;
      float scale;
      load(args.row_scale, row * args.row_scale.stride(0), 1, 1, &scale);
      scale *= args.logit_scale;
      const double steep = 1 + 2 * args.z_loss * lse, e = std::exp2(static_cast<double>(of.at_label) * kLog2E - ref);
      const float t = args.softcap > 0 ? of.at_label / args.softcap : 0;
      of.weight = static_cast<float>(scale * steep / sum);
      of.label_weight = static_cast<float>(scale * (1 - t * t) * (e / sum * steep - 1));
    }

    // 32 rows × 32 columns of the gradient
    void put(int64_t group, int64_t column) const {
      const View& to = a.args_.dhidden;
      const int64_t columns = std::min(kPanel, to.dim(1) - column);
      for (int64_t r = group * kGroup; r < std::min(m, (group + 1) * kGroup); ++r) {
        const Row& of = w.rows[r];
        const BF16* label = reinterpret_cast<const BF16*>(w.labels) + r * a.in_ + column;
        const F weight = Avx512::all(of.label_weight);
        F sum[2] = {Avx512::load(label) * weight, Avx512::load(label + kLanes) * weight};
        const float* g = w.gradient + (column / kPanel * a.pass_ + r) * kPanel;
        for (int64_t s = 0; s < a.slices_; ++s, g += a.pass_ * a.in_) {
          const F factor = Avx512::all(of.weight * w.weights[s * a.pass_ + r]);
          for (int64_t i = 0; i < 2; ++i) sum[i] = Avx512::fma(_mm512_load_ps(g + i * kLanes), factor, sum[i]);
        }
        const int64_t offset = (first + r) * to.stride(0) + column;
        for (int64_t i = 0; i < 2; ++i) {
          const int64_t n = std::clamp<int64_t>(columns - i * kLanes, 0, kLanes);
          if (to.dtype == DType::kBF16)
            Avx512Bf16::store(static_cast<BF16*>(to.data) + offset + i * kLanes, sum[i], n);
          else
            Avx512::store(static_cast<float*>(to.data) + offset + i * kLanes, sum[i], n);
        }
      }
    }
  };

  const ops::HeadLossArgs& args_;
  const GemmKernels& kernels_;
  int64_t workers_;
  int64_t vocabulary_ = args_.weight->out, in_ = padded(args_.hidden.dim(1), 32), tiles_in_ = in_ / 32;
  int64_t slices_ = (vocabulary_ + kSlice - 1) / kSlice;
  bool wants_gradient_ = static_cast<bool>(args_.dhidden), shapes_ = args_.logit_scale != 1 || args_.softcap > 0;
  const char* weight_ =
      reinterpret_cast<const char*>(args_.weight->planes.empty() ? nullptr : args_.weight->planes[0].bytes.data());
  // rows of a pass and of a task: these change no bits
  int64_t pass_ = padded(
      std::min({args_.hidden.dim(0), kPass, std::max<int64_t>(kPassBytes / (slices_ * in_ * 4), kBlock)}), kGroup);
  int64_t block_ = block_rows();
  int64_t block_rows() const {
    int64_t rows = std::min(pass_, kBlock);
    while (rows > 64 && (pass_ + rows - 1) / rows * slices_ < 2 * workers_) rows = padded(rows / 2, kGroup);
    return rows;
  }
};

#pragma GCC pop_options

}  // namespace pmetal::cpu
