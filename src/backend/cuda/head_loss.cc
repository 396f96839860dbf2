// Launcher of head_loss: rows meet the head in chunks whose logits fit kLogitBytes; see head_loss.cu and
// head_loss_sm90.cu.
#include "ops/head_loss.h"

#include "backend/cuda/dense.h"
#include "backend/cuda/head_loss_sm90.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/matmul.h"

namespace pmetal::cuda {
namespace {

using ops::HeadLossArgs;

constexpr int64_t kLogitBytes = 512 << 20;
constexpr int64_t kRowStep = 128;  // chunks of whole tiles of the product

const char* decline(const HeadLossArgs& args, const KernelContext&) {
  if (is_double(args.hidden.dtype)) return "f64 runs on the CPU";
  if (args.weight && !args.weight->format->is_dense) return "the weight's format has no CUDA kernel";
  for (const View* v : {&args.labels, &args.row_scale, &args.nll, &args.entropy, &args.correct})
    if (v->data && v->dim(0) > 1 && v->stride(0) != 1) return "per-row values are strided";
  return nullptr;
}

View head_of(const HeadLossArgs& args) { return args.weight ? dense_view(*args.weight) : args.dense; }

int64_t chunk_rows(const HeadLossArgs& args) {
  const int64_t fit = kLogitBytes / 4 / std::max<int64_t>(1, head_of(args).dim(0));
  return std::min(std::max(fit / kRowStep * kRowStep, std::min(kRowStep, std::max<int64_t>(fit, 1))),
                  args.hidden.dim(0));
}

int64_t logit_bytes(const HeadLossArgs& args) {
  return (chunk_rows(args) * head_of(args).dim(0) * 4 + 255) / 256 * 256;
}

int64_t workspace(const HeadLossArgs& args, const KernelContext&) { return logit_bytes(args) + kProductWorkspace; }

View rows_of(const View& v, int64_t first, int64_t rows) {
  View part = v;
  part.data = static_cast<std::byte*>(v.data) + first * v.stride(0) * size_of(v.dtype);
  part.shape[0] = rows;
  return part;
}

void run(const HeadLossArgs& args, const KernelContext& kernel) {
  const int64_t rows = args.hidden.dim(0);
  if (rows == 0) return;
  Stream& stream = stream_of(kernel);
  const View head = head_of(args);
  const int64_t n = head.dim(0), chunk = chunk_rows(args);
  void* products = static_cast<std::byte*>(kernel.workspace) + logit_bytes(args);
  RowLossLaunch a{};
  a.logits = static_cast<float*>(kernel.workspace);
  a.n = n;
  a.logit_scale = args.logit_scale;
  a.softcap = args.softcap;
  a.z_loss = args.z_loss;
  a.smoothing = args.label_smoothing;
  a.gradient = args.dhidden || args.dweight;
  a.narrows = args.hidden.dtype == DType::kBF16;
  const bool by_cluster = has_sm90_kernels() && stream.is_sm90() && n % 4 == 0 && n <= row_loss_sm90_columns();
  for (int64_t first = 0; first < rows; first += chunk) {
    const int64_t m = std::min(chunk, rows - first);
    const View hidden = rows_of(args.hidden, first, m), logits{a.logits, DType::kF32, 2, {m, n}, {n, 1}};
    View gradient = logits;
    if (a.narrows) {
      gradient.dtype = DType::kBF16;
      gradient.strides[0] = 2 * n;
    }
    multiply({hidden, head, logits, false, true, false, 1}, {}, stream, products);
    a.rows = m;
    a.labels = args.labels.as<int32_t>() + first;
    a.row_scale = args.row_scale.as<float>() + first;
    a.nll = args.nll.as<float>() + first;
    a.entropy = args.entropy ? args.entropy.as<float>() + first : nullptr;
    a.correct = args.correct ? args.correct.as<uint8_t>() + first : nullptr;
    by_cluster ? launch_row_loss_sm90(stream.handle(), a) : launch_row_loss(stream.handle(), a);
    check_launch("head_loss");
    if (args.dhidden)
      multiply({gradient, head, rows_of(args.dhidden, first, m), false, false, false, 1}, {}, stream, products);
    if (args.dweight) multiply({gradient, hidden, args.dweight, true, false, true, 1}, {}, stream, products);
  }
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<HeadLossArgs> kCandidates[] = {{"chunks", cuda::decline, cuda::run, cuda::workspace}};
}
const KernelList<HeadLossArgs> head_loss_cuda = {"head_loss", kCandidates};
}  // namespace pmetal::ops
