// head_loss: rows of hidden states meet the head in chunks whose logits fit kLogitBytes; the chunk becomes the loss and
// its own gradient in place, then flows back (fused linear cross entropy, as in Liger). Products are those of `linear`
// and `matmul`, so their tuned kernels serve here too. Per row, with logit x = cap(scale · raw):
//   loss = (1 − ε)(lse − x_label) + ε(lse − mean x) + z · lse²
//   dx_j = p_j (1 + 2 z lse) − (1 − ε)[j = label] − ε / V,   draw_j = dx_j · (1 − (x_j / cap)²) · scale
#include "backend/cpu/head_loss.h"

#include "backend/cpu/compose.h"
#include "backend/cpu/plain.h"
#include "ops/linear.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::HeadLossArgs;
using ops::LinearArgs;
using ops::MatmulArgs;

constexpr int64_t kLogitBytes = 64 << 20;
constexpr int64_t kMaxRows = 512;

int64_t vocabulary_of(const HeadLossArgs& args) { return args.weight ? args.weight->out : args.dense.dim(0); }

int64_t chunk_rows(const HeadLossArgs& args) {
  const int64_t fit = kLogitBytes / 4 / std::max<int64_t>(1, vocabulary_of(args));
  return std::min(std::clamp<int64_t>(fit, 1, kMaxRows), args.hidden.dim(0));
}

int64_t logit_bytes(const HeadLossArgs& args) {
  const int64_t size = is_double(args.hidden.dtype) ? 8 : 4;
  return (chunk_rows(args) * vocabulary_of(args) * size + 63) / 64 * 64;
}

View rows_of(const View& v, int64_t first, int64_t rows) {
  View part = v;
  part.data = static_cast<std::byte*>(v.data) + first * v.stride(0) * size_of(v.dtype);
  part.shape[0] = rows;
  return part;
}

View matrix(void* data, DType dtype, int64_t rows, int64_t columns) {
  return View{data, dtype, 2, {rows, columns}, {columns, 1}};
}

// The products of one chunk.
struct Products {
  LinearArgs logits, dhidden;
  MatmulArgs dense_logits, dense_dhidden, dweight;
};

// The gradient of the logits is rounded to bf16 where the hidden states are bf16: so are all gradients of activations,
// and the products meet matrix units. It lies in the row's own place, in its first half.
bool narrows(const HeadLossArgs& args) { return args.hidden.dtype == DType::kBF16; }

Products products(const HeadLossArgs& args, int64_t first, int64_t rows, void* logits) {
  Products p;
  const View hidden = rows_of(args.hidden, first, rows);
  const DType dtype = is_double(args.hidden.dtype) ? DType::kF64 : DType::kF32;
  const View chunk = matrix(logits, dtype, rows, vocabulary_of(args));
  View dlogits = chunk;
  if (narrows(args)) {
    dlogits.dtype = DType::kBF16;
    dlogits.strides[0] *= 2;
  }
  const View dhidden = args.dhidden ? rows_of(args.dhidden, first, rows) : View{};
  p.logits = {hidden, args.weight, {}, chunk, false, false};
  p.dhidden = {dlogits, args.weight, {}, dhidden, true, false};
  p.dense_logits = {hidden, args.dense, chunk, false, true, false, 1};
  p.dense_dhidden = {dlogits, args.dense, dhidden, false, false, false, 1};
  p.dweight = {dlogits, hidden, args.dweight, true, false, true, 1};
  return p;
}

template <class A>
struct RowLoss {
  const HeadLossArgs& args;
  int64_t n = vocabulary_of(args);
  A scale = args.logit_scale, cap = args.softcap, smoothing = args.label_smoothing, z = args.z_loss;

  // loss and metrics of row r from its raw logits; leaves the gradient to the raw logits in their place
  void run(int64_t r, A* x) const {
    const int64_t label = args.labels.as<int32_t>()[r * args.labels.stride(0)];
    PMETAL_ASSERT(label >= 0 && label < n, "label {} of a vocabulary of {}", label, n);
    if (scale != 1)
      for (int64_t i = 0; i < n; ++i) x[i] *= scale;
    if (cap > 0)
      for (int64_t i = 0; i < n; ++i) x[i] = cap * std::tanh(x[i] / cap);
    A max = -std::numeric_limits<A>::infinity();
    for (int64_t i = 0; i < n; ++i) max = x[i] > max ? x[i] : max;
    A sum = 0, weighted = 0;
    for (int64_t c = 0; c < n; c += kBlock) {
      const int64_t width = std::min(kBlock, n - c);
      A e[kBlock], shifted[kBlock];
      for (int64_t i = 0; i < width; ++i) {
        shifted[i] = x[c + i] - max;
        e[i] = exp_of(shifted[i]);
      }
      sum += total(e, width);
      for (int64_t i = 0; i < width; ++i) shifted[i] = e[i] > 0 ? shifted[i] : A{0};
      weighted += dot(e, shifted, width);
    }
    const A log_sum = std::log(sum), lse = max + log_sum;
    A loss = lse - x[label];
    if (smoothing > 0) loss = (1 - smoothing) * loss + smoothing * (lse - total(x, n) / static_cast<A>(n));
    loss += z * lse * lse;
    store(args.nll, r * args.nll.stride(0), 1, 1, &loss);
    if (args.entropy) {
      const A entropy = log_sum - weighted / sum;
      store(args.entropy, r * args.entropy.stride(0), 1, 1, &entropy);
    }
    if (args.correct) {  // the first of equal maxima
      bool first = x[label] == max;
      for (int64_t i = 0; i < label && first; ++i) first = x[i] != max;
      args.correct.as<uint8_t>()[r * args.correct.stride(0)] = first;
    }
    if (!args.dhidden && !args.dweight) return;
    A weight;
    load(args.row_scale, r * args.row_scale.stride(0), 1, 1, &weight);
    const A p_scale = (1 + 2 * z * lse) / sum, even = smoothing / static_cast<A>(n), factor = weight * scale;
    const A at_label = x[label];
    if (cap > 0) {
      for (int64_t i = 0; i < n; ++i) {
        const A t = x[i] / cap;
        x[i] = (exp_of(x[i] - max) * p_scale - even) * factor * (1 - t * t);
      }
      const A t = at_label / cap;
      x[label] -= (1 - smoothing) * factor * (1 - t * t);
    } else {
      for (int64_t i = 0; i < n; ++i) x[i] = (exp_of(x[i] - max) * p_scale - even) * factor;
      x[label] -= (1 - smoothing) * factor;
    }
    if (narrows(args))
      for (int64_t i = 0; i < n; ++i) reinterpret_cast<BF16*>(x)[i] = narrow_to<BF16>(x[i]);  // never ahead of the read
  }
};

template <class A>
void run(const HeadLossArgs& args, const KernelContext& kernel) {
  const int64_t rows = args.hidden.dim(0), chunk = chunk_rows(args), n = vocabulary_of(args);
  A* logits = static_cast<A*>(kernel.workspace);
  void* inner = reinterpret_cast<std::byte*>(logits) + logit_bytes(args);
  const RowLoss<A> row_loss{args};
  for (int64_t first = 0; first < rows; first += chunk) {
    const int64_t m = std::min(chunk, rows - first);
    const Products p = products(args, first, m, logits);
    if (args.weight)
      run_chosen(ops::linear_cpu, p.logits, kernel, inner);
    else
      run_chosen(ops::matmul_cpu, p.dense_logits, kernel, inner);
    for_rows(kernel, m, n, [&](int64_t r) { row_loss.run(first + r, logits + r * n); });
    if (args.dhidden) {
      if (args.weight)
        run_chosen(ops::linear_cpu, p.dhidden, kernel, inner);
      else
        run_chosen(ops::matmul_cpu, p.dense_dhidden, kernel, inner);
    }
    if (args.dweight) run_chosen(ops::matmul_cpu, p.dweight, kernel, inner);
  }
}

}  // namespace

// The same chunks of whole logit rows, where their products are the tuned ones.
const char* head_loss_chunks_decline(const HeadLossArgs& args, const KernelContext& kernel) {
  if (is_double(args.hidden.dtype)) return "takes bf16 and f32 alone";
  const auto is_plain = [&](const auto& list, const auto& product) {
    return &chosen(list, product, kernel) == &list.candidates.back();
  };
  const Products p = products(args, 0, std::min<int64_t>(args.hidden.dim(0), 1), nullptr);
  if (args.weight
          ? is_plain(ops::linear_cpu, p.logits) || (args.dhidden && is_plain(ops::linear_cpu, p.dhidden))
          : is_plain(ops::matmul_cpu, p.dense_logits) || (args.dhidden && is_plain(ops::matmul_cpu, p.dense_dhidden)))
    return "no tuned product takes this head";
  if (args.dweight && is_plain(ops::matmul_cpu, p.dweight)) return "no tuned product takes the head's gradient";
  return nullptr;
}

int64_t head_loss_plain_workspace(const HeadLossArgs& args, const KernelContext& kernel) {
  const int64_t rows = chunk_rows(args);
  int64_t inner = 0;
  for (const int64_t m : {rows, rows ? args.hidden.dim(0) % rows : 0}) {  // the last chunk may be shorter
    if (m == 0) continue;
    const Products p = products(args, 0, m, nullptr);
    const auto include = [&](int64_t bytes) { inner = std::max(inner, bytes); };
    include(args.weight ? workspace_of(ops::linear_cpu, p.logits, kernel)
                        : workspace_of(ops::matmul_cpu, p.dense_logits, kernel));
    if (args.dhidden)
      include(args.weight ? workspace_of(ops::linear_cpu, p.dhidden, kernel)
                          : workspace_of(ops::matmul_cpu, p.dense_dhidden, kernel));
    if (args.dweight) include(workspace_of(ops::matmul_cpu, p.dweight, kernel));
  }
  return logit_bytes(args) + inner;
}

void head_loss_plain(const HeadLossArgs& args, const KernelContext& kernel) {
  if (args.hidden.dim(0) == 0) return;
  with_accumulator(args.hidden.dtype, [&](auto zero) { run<decltype(zero)>(args, kernel); });
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
const Candidate<HeadLossArgs> kCandidates[] = {
    {"amx", cpu::head_loss_amx_decline, cpu::head_loss_amx, cpu::head_loss_amx_workspace},
    {"flash", cpu::head_loss_flash_decline, cpu::head_loss_flash, cpu::head_loss_flash_workspace},
    {"chunks", cpu::head_loss_chunks_decline, cpu::head_loss_plain, cpu::head_loss_plain_workspace},
    {"plain", nullptr, cpu::head_loss_plain, cpu::head_loss_plain_workspace}};
}
const KernelList<HeadLossArgs> head_loss_cpu = {"head_loss", kCandidates};
}  // namespace pmetal::ops
