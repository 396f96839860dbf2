// head_loss in one pass over the vocabulary (flash attention with K = V = W, Wijmans et al. 2024, "Cut your losses"):
//   for each 2048 rows of W:  Z = H Wᵀ;  rows: E = e^(z − running max), sums;  G = factor · G + E W
//   then  dH = row_scale · (G · (1 + 2 z_loss · lse) / Σ − W[label])
// so the head is read once and no row of logits is ever whole. E is rounded to bf16 where H is bf16; where the label is
// the row's maximum its e is 1, so the difference of the two label terms loses nothing. Frozen heads, no smoothing;
// head_loss_tiles.h is the same walk on AMX; head_loss.cc does the rest. The chunks are fixed, so bits of a row depend
// on the row alone.
#include <cmath>
#include <limits>

#include "backend/cpu/compose.h"
#include "backend/cpu/head_loss.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/plain.h"
#include "backend/cpu/score_rows.h"
#include "ops/linear.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::HeadLossArgs;
using ops::LinearArgs;

constexpr int64_t kColumns = 2048;  // of the vocabulary at a time
constexpr int64_t kPad = 16;        // between rows, which else lie in the same sets of the caches
constexpr int64_t kMaxRows = 1024;  // of H

struct RowState {
  float max = -std::numeric_limits<float>::infinity(), sum = 0, weighted = 0, at_label = 0, factor = 1;
  int64_t best = -1;
};

View matrix(void* data, DType dtype, int64_t rows, int64_t columns, int64_t stride) {
  return View{data, dtype, 2, {rows, columns}, {stride, 1}};
}

// rows [begin, end) of a weight whose format may be cut there
quant::Weight rows_of(const quant::Weight& w, int64_t begin, int64_t end) {
  quant::Weight part = w;
  part.out = end - begin;
  const auto before = w.format->layout(begin, w.in), own = w.format->layout(end - begin, w.in);
  for (size_t p = 0; p < part.planes.size(); ++p)
    part.planes[p].bytes = w.planes[p].bytes.slice(before[p].size_bytes, own[p].size_bytes);
  return part;
}

struct Flash {
  const HeadLossArgs& args;
  const ScoreRows& rows_of_scores = score_rows_for(isa());
  int64_t n = args.hidden.dim(1), vocabulary = args.weight->out;
  int64_t chunk = std::min(kMaxRows, std::max<int64_t>(args.hidden.dim(0), 1));
  bool narrow = args.hidden.dtype == DType::kBF16, wants_gradient = static_cast<bool>(args.dhidden);

  struct Scratch {
    float *z, *gradient, *label_row;  // [chunk, kColumns], [chunk, n], [n] per worker
    RowState* state;
    void* inner;
    int64_t bytes;
  };
  Scratch carve(void* data, int64_t workers) const {
    const int64_t width = std::min(kColumns, vocabulary) + kPad;
    char* at = static_cast<char*>(data);
    const auto take = [&](int64_t bytes) {
      char* p = at;
      at += (bytes + 63) / 64 * 64;
      return p;
    };
    Scratch w;
    w.z = reinterpret_cast<float*>(take(chunk * width * 4));
    w.gradient = reinterpret_cast<float*>(take(wants_gradient ? chunk * (n + kPad) * 4 : 0));
    w.label_row = reinterpret_cast<float*>(take(workers * n * 4));
    w.state = reinterpret_cast<RowState*>(take(chunk * static_cast<int64_t>(sizeof(RowState))));
    w.inner = at;
    w.bytes = at - static_cast<char*>(data);
    return w;
  }

  struct Products {
    LinearArgs logits, gradient;
  };
  Products products(const quant::Weight& part, int64_t first, int64_t m, const Scratch& w) const {
    View hidden = args.hidden;
    hidden.data = static_cast<char*>(hidden.data) + first * hidden.stride(0) * size_of(hidden.dtype);
    hidden.shape[0] = m;
    const int64_t width = std::min(kColumns, vocabulary) + kPad;
    const View e =
        narrow ? matrix(w.z, DType::kBF16, m, part.out, 2 * width) : matrix(w.z, DType::kF32, m, part.out, width);
    return {{hidden, &part, {}, matrix(w.z, DType::kF32, m, part.out, width), false, false},
            {e, &part, {}, matrix(w.gradient, DType::kF32, m, n, n + kPad), true, true}};
  }

  int64_t workspace(const KernelContext& kernel) const {
    const Scratch w = carve(nullptr, workers_of(kernel));
    int64_t inner = 0;
    const int64_t rows = args.hidden.dim(0);
    for (const int64_t m : {chunk, rows % chunk})
      for (const int64_t columns : {std::min(kColumns, vocabulary), vocabulary % kColumns}) {
        if (m == 0 || columns == 0) continue;
        quant::Weight part = *args.weight;
        part.out = columns;
        const Products p = products(part, 0, m, w);
        inner = std::max({inner, workspace_of(ops::linear_cpu, p.logits, kernel),
                          wants_gradient ? workspace_of(ops::linear_cpu, p.gradient, kernel) : 0});
      }
    return w.bytes + inner;
  }

  int64_t label_of(int64_t row) const {
    const int64_t label = args.labels.as<int32_t>()[row * args.labels.stride(0)];
    PMETAL_ASSERT(label >= 0 && label < vocabulary, "label {} of a vocabulary of {}", label, vocabulary);
    return label;
  }
  float shaped(float z) const {
    z *= args.logit_scale;
    return args.softcap > 0 ? args.softcap * std::tanh(z / args.softcap) : z;
  }

  void run(const KernelContext& kernel) const {
    const Scratch w = carve(kernel.workspace, workers_of(kernel));
    const int64_t rows = args.hidden.dim(0), width = std::min(kColumns, vocabulary) + kPad;
    for (int64_t first = 0; first < rows; first += chunk) {
      const int64_t m = std::min(chunk, rows - first);
      std::fill(w.state, w.state + m, RowState{});
      if (wants_gradient) for_rows(kernel, m, n, [&](int64_t r) { std::fill_n(w.gradient + r * (n + kPad), n, 0.f); });
      for (int64_t column = 0; column < vocabulary; column += kColumns) {
        const int64_t columns = std::min(kColumns, vocabulary - column);
        const quant::Weight part = rows_of(*args.weight, column, column + columns);
        const Products p = products(part, first, m, w);
        run_chosen(ops::linear_cpu, p.logits, kernel, w.inner);
        for_rows(kernel, m, 4 * columns, [&](int64_t r) {
          RowState& s = w.state[r];
          float* z = w.z + r * width;
          if (const int64_t at = label_of(first + r) - column; at >= 0 && at < columns) s.at_label = shaped(z[at]);
          rows_of_scores.logits({z, columns, args.logit_scale, args.softcap, narrow, wants_gradient, &s.max, &s.sum,
                                 &s.weighted, &s.best, column, &s.factor});
          if (wants_gradient && s.factor != 1)
            rows_of_scores.scale_to(w.gradient + r * (n + kPad), s.factor, w.gradient + r * (n + kPad), DType::kF32, n);
        });
        if (wants_gradient) run_chosen(ops::linear_cpu, p.gradient, kernel, w.inner);
      }
      for_items(kernel, m, [&](int64_t r, int worker) { finish(w, first + r, r, w.label_row + worker * n); });
    }
  }

  void finish(const Scratch& w, int64_t row, int64_t r, float* label_row) const {
    const RowState& s = w.state[r];
    const float log_sum = std::log(s.sum), lse = s.max + log_sum;
    args.nll.as<float>()[row * args.nll.stride(0)] = lse - s.at_label + args.z_loss * lse * lse;
    if (args.entropy) args.entropy.as<float>()[row * args.entropy.stride(0)] = log_sum - s.weighted / s.sum;
    const int64_t label = label_of(row);
    if (args.correct) args.correct.as<uint8_t>()[row * args.correct.stride(0)] = s.best == label;
    if (!wants_gradient) return;
    float weight;
    load(args.row_scale, row * args.row_scale.stride(0), 1, 1, &weight);
    weight *= args.logit_scale;
    const float t = args.softcap > 0 ? s.at_label / args.softcap : 0;
    args.weight->format->decode_rows(*args.weight, label, label + 1, label_row);
    float* gradient = w.gradient + r * (n + kPad);
    rows_of_scores.scale_to(gradient, weight * (1 + 2 * args.z_loss * lse) / s.sum, gradient, DType::kF32, n);
    rows_of_scores.add_scaled(label_row, -weight * (1 - t * t), gradient, n);
    rows_of_scores.scale_to(
        gradient, 1, static_cast<char*>(args.dhidden.data) + row * args.dhidden.stride(0) * size_of(args.dhidden.dtype),
        args.dhidden.dtype, n);
  }
};

}  // namespace

const char* head_loss_flash_decline(const HeadLossArgs& args, const KernelContext& kernel) {
  if (isa() < Isa::kAvx2) return "AVX2 is switched off";
  if (!args.weight || args.dweight) return "takes frozen heads alone";
  if (args.label_smoothing > 0) return "no label smoothing";
  if (args.hidden.dtype != DType::kBF16 && args.hidden.dtype != DType::kF32) return "takes bf16 and f32 alone";
  if (kColumns % std::max<int64_t>(args.weight->format->row_cut, 1) != 0) return "the weight cannot be cut there";
  const DType reals[] = {args.nll.dtype, args.entropy ? args.entropy.dtype : DType::kF32};
  for (DType t : reals)
    if (t != DType::kF32) return "results must be f32";
  if (args.dhidden &&
      (args.dhidden.stride(-1) != 1 || (args.dhidden.dtype != DType::kBF16 && args.dhidden.dtype != DType::kF32)))
    return "dhidden must be dense bf16 or f32";
  const Flash flash{args};
  quant::Weight part = *args.weight;
  part.out = std::min(kColumns, args.weight->out);
  const auto p = flash.products(part, 0, std::min<int64_t>(args.hidden.dim(0), 1), flash.carve(nullptr, 1));
  const auto is_plain = [&](const LinearArgs& product) {
    return &chosen(ops::linear_cpu, product, kernel) == &ops::linear_cpu.candidates.back();
  };
  if (is_plain(p.logits) || (args.dhidden && is_plain(p.gradient))) return "no tuned product takes this head";
  return nullptr;
}
int64_t head_loss_flash_workspace(const HeadLossArgs& args, const KernelContext& kernel) {
  return Flash{args}.workspace(kernel);
}
void head_loss_flash(const HeadLossArgs& args, const KernelContext& kernel) {
  if (args.hidden.dim(0) > 0) Flash{args}.run(kernel);
}

}  // namespace pmetal::cpu
