// Launchers of attention and attention_backward: wgmma where the device has it, tensor cores of any kind, then the
// plain kernels.
#include "ops/attention.h"

#include "backend/cuda/launch.h"

namespace pmetal::cuda {
namespace {

using ops::AttentionArgs;
using ops::AttentionBackwardArgs;

constexpr int64_t kDecodeRows = 16, kWarpgroupRows = 64, kKeyTile = 64, kBlocksPerMultiprocessor = 2;
constexpr int64_t kFixedTiles = 8;  // of a split, where a row's bits may not depend on what else runs

AttentionLaunch common(const AttentionArgs& args) {
  AttentionLaunch a{};
  a.q = args.q, a.k = args.k, a.v = args.v, a.out = args.out, a.lse = args.lse;
  a.cu_q = args.cu_q, a.kv_len = args.kv_len, a.cu_k = args.cu_k, a.page_table = args.page_table, a.sinks = args.sinks;
  a.causal = args.mask.kind == ops::MaskKind::kCausal;
  a.window = static_cast<int>(std::min<int64_t>(args.mask.window, 1 << 30));
  a.chunk = static_cast<int>(std::min<int64_t>(args.mask.chunk, 1 << 30));
  a.group = static_cast<int>(args.q.dim(1) / args.k.dim(1));
  a.sequences = static_cast<int>(args.kv_len.dim(0));
  a.max_q = args.max_q, a.max_kv = args.max_kv;
  a.scale = args.scale, a.softcap = args.softcap;
  return a;
}

// rows of 16-byte chunks: [.., d]
bool has_chunks(const View& v) {
  if (v.stride(-1) != 1 || v.dim(-1) % 8 || !is_aligned(v, 16)) return false;
  for (int i = 0; i + 1 < v.rank; ++i)
    if (v.strides[i] % 8) return false;
  return true;
}

const char* decline_plain(const AttentionArgs& args, const KernelContext&) {
  if (is_double(args.q.dtype)) return "f64 runs on the CPU";
  return args.q.dim(2) > 512 || args.out.dim(2) > 512 ? "heads of more than 512" : nullptr;
}
const char* decline_tensor_cores(const AttentionArgs& args, const KernelContext&) {
  for (const View* v : {&args.q, &args.k, &args.v, &args.out}) {
    if (v->dtype != DType::kBF16) return "not bf16";
    if (v->dim(-1) > 128) return "heads of more than 128";
    if (!has_chunks(*v)) return "rows are not made of 16-byte chunks";
  }
  return nullptr;
}

const char* decline_sm90(const AttentionArgs& args, const KernelContext& kernel) {
  if (!has_sm90_kernels() || !stream_of(kernel).is_sm90()) return "no wgmma: built without sm_90a, or another device";
  if (args.max_q * (args.q.dim(1) / args.k.dim(1)) <= kWarpgroupRows) return "few query rows";
  return decline_tensor_cores(args, kernel);
}

// 0: not a decode step
int64_t splits_of(const AttentionArgs& args, const KernelContext& kernel) {
  const int64_t group = args.q.dim(1) / args.k.dim(1);
  if (args.max_q * group > kDecodeRows) return 0;
  if (kernel.is_batch_invariant)
    return std::max<int64_t>(1, (args.max_kv + kFixedTiles * kKeyTile - 1) / (kFixedTiles * kKeyTile));
  const int64_t blocks = args.k.dim(1) * args.kv_len.dim(0);
  const int64_t wanted = stream_of(kernel).multiprocessors() * kBlocksPerMultiprocessor / std::max<int64_t>(1, blocks);
  return std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, (args.max_kv + kKeyTile - 1) / kKeyTile));
}

int64_t decode_workspace(const AttentionArgs& args, const KernelContext& kernel) {
  return args.kv_len.dim(0) * args.k.dim(1) * splits_of(args, kernel) * kDecodeRows * (args.out.dim(2) + 2) * 4;
}

void run_tensor_cores(const AttentionArgs& args, const KernelContext& kernel) {
  if (args.q.numel() == 0) return;
  AttentionLaunch a = common(args);
  a.splits = static_cast<int>(splits_of(args, kernel));
  a.tiles_per_split = kernel.is_batch_invariant ? static_cast<int>(kFixedTiles) : 0;
  a.partial = static_cast<float*>(kernel.workspace);
  const cudaStream_t stream = stream_of(kernel).handle();
  a.splits > 0 ? launch_attention_decode(stream, a) : launch_attention(stream, a);
  check_launch("attention");
}

int64_t counter_bytes(const AttentionArgs&, const KernelContext&) { return sizeof(int); }
void run_sm90(const AttentionArgs& args, const KernelContext& kernel) {
  if (args.q.numel() == 0) return;
  AttentionLaunch a = common(args);
  a.multiprocessors = stream_of(kernel).multiprocessors();
  a.taken = static_cast<int*>(kernel.workspace);
  const cudaStream_t stream = stream_of(kernel).handle();
  check(cudaMemsetAsync(a.taken, 0, sizeof(int), stream), "cudaMemsetAsync");
  launch_attention_sm90(stream, a);
  check_launch("attention (sm90)");
}

void run_plain(const AttentionArgs& args, const KernelContext& kernel) {
  if (args.q.numel() == 0) return;
  launch_attention_plain(stream_of(kernel).handle(), common(args));
  check_launch("attention (plain)");
}

// ---- backward ----
int64_t delta_bytes(const AttentionBackwardArgs& args, const KernelContext&) {
  return args.forward.q.dim(0) * args.forward.q.dim(1) * 4;
}
const char* decline_backward(const AttentionBackwardArgs& args, const KernelContext& kernel) {
  for (const View* v : {&args.dout, &args.dq, &args.dk, &args.dv})
    if (v->dtype != DType::kBF16 || !has_chunks(*v)) return "gradients are not bf16 rows of 16-byte chunks";
  return decline_tensor_cores(args.forward, kernel);
}
const char* decline_backward_plain(const AttentionBackwardArgs& args, const KernelContext& kernel) {
  return decline_plain(args.forward, kernel);
}
const char* decline_backward_sm90(const AttentionBackwardArgs& args, const KernelContext& kernel) {
  if (const char* why = decline_sm90(args.forward, kernel)) return why;
  return decline_backward(args, kernel);
}
// one more for each row and head, and two counters
int64_t sm90_bytes(const AttentionBackwardArgs& args, const KernelContext& kernel) {
  return 2 * delta_bytes(args, kernel) + int64_t{2 * sizeof(int)};
}
void run_backward_sm90(const AttentionBackwardArgs& args, const KernelContext& kernel) {
  if (args.forward.q.numel() == 0) return;
  AttentionLaunch a = common(args.forward);
  a.dout = args.dout, a.dq = args.dq, a.dk = args.dk, a.dv = args.dv, a.dsinks = args.dsinks;
  a.delta = static_cast<float*>(kernel.workspace);
  a.taken = reinterpret_cast<int*>(a.delta + 2 * args.forward.q.dim(0) * args.forward.q.dim(1));
  a.multiprocessors = stream_of(kernel).multiprocessors();
  const cudaStream_t stream = stream_of(kernel).handle();
  if (args.dsinks) launch_attention_delta(stream, a);
  launch_attention_backward_sm90(stream, a);
  check_launch("attention_backward (sm90)");
}
template <void (*kLaunch)(StreamHandle, const AttentionLaunch&)>
void run_backward(const AttentionBackwardArgs& args, const KernelContext& kernel) {
  if (args.forward.q.numel() == 0) return;
  AttentionLaunch a = common(args.forward);
  a.dout = args.dout, a.dq = args.dq, a.dk = args.dk, a.dv = args.dv, a.dsinks = args.dsinks;
  a.delta = static_cast<float*>(kernel.workspace);
  const cudaStream_t stream = stream_of(kernel).handle();
  launch_attention_delta(stream, a);
  kLaunch(stream, a);
  check_launch("attention_backward");
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<AttentionArgs> kForward[] = {
    {"sm90", cuda::decline_sm90, cuda::run_sm90, cuda::counter_bytes},
    {"tensor_cores", cuda::decline_tensor_cores, cuda::run_tensor_cores, cuda::decode_workspace},
    {"plain", cuda::decline_plain, cuda::run_plain},
};
const Candidate<AttentionBackwardArgs> kBackward[] = {
    {"sm90", cuda::decline_backward_sm90, cuda::run_backward_sm90, cuda::sm90_bytes},
    {"tensor_cores", cuda::decline_backward, cuda::run_backward<cuda::launch_attention_backward>, cuda::delta_bytes},
    {"plain", cuda::decline_backward_plain, cuda::run_backward<cuda::launch_attention_backward_plain>,
     cuda::delta_bytes},
};
}  // namespace
const KernelList<AttentionArgs> attention_cuda = {"attention", kForward};
const KernelList<AttentionBackwardArgs> attention_backward_cuda = {"attention_backward", kBackward};
}  // namespace pmetal::ops
