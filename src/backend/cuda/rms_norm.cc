// Launchers of rms_norm and rms_norm_backward.
#include "backend/cuda/launch.h"
#include "backend/cuda/rms_norm_rows.h"
#include "ops/norm.h"

namespace pmetal::cuda {
namespace {

constexpr int64_t kChunkRows = 64;  // rows whose part of dweight one block sums

int64_t rows_of(const View& x) { return x.numel() / std::max<int64_t>(1, x.dim(-1)); }
int64_t head_stride(const View& v) { return v.rank == 3 ? v.stride(1) : 0; }
bool is_packed(const View& v) { return has_packed_rows(v) && (!v.data || v.rank < 3 || v.stride(1) % 8 == 0); }

template <class Args>
const char* decline(const Args& args, const KernelContext&) {
  if (is_double(args.x.dtype)) return "f64 runs on the CPU";
  if (args.x.rank == 3 && rows_of(args.x) >= int64_t{1} << 31) return "very many rows";
  return args.x.stride(-1) != 1 || args.weight.stride(0) != 1 ? "columns are not contiguous" : nullptr;
}

RmsNormLaunch common(const View& x, const View& weight, float eps, float offset) {
  RmsNormLaunch a{};
  a.x = x.data;
  a.weight = weight.data;
  a.rows = rows_of(x);
  a.n = x.dim(-1);
  a.heads = x.rank == 3 ? x.dim(1) : 1;
  a.x_stride = x.stride(0);
  a.x_head_stride = head_stride(x);
  a.dtype = x.dtype;
  a.weight_dtype = weight.dtype;
  a.eps = eps;
  a.offset = offset;
  a.packed = is_packed(x) && is_aligned(weight, 8 * size_of(weight.dtype));
  return a;
}

void forward(const ops::RmsNormArgs& args, const KernelContext& kernel) {
  if (args.x.numel() == 0) return;
  RmsNormLaunch a = common(args.x, args.weight, args.eps, args.offset);
  a.y = args.y.data;
  a.y_stride = args.y.stride(0);
  a.y_head_stride = head_stride(args.y);
  a.packed &= is_packed(args.y) && has_packed_rows(args.residual) && has_packed_rows(args.sum);
  if (args.residual) {
    a.residual = args.residual.data;
    a.residual_stride = args.residual.stride(0);
    a.sum = args.sum.data;
    a.sum_stride = args.sum.stride(0);
  }
  launch_rms_norm(stream_of(kernel).handle(), a, false);
  check_launch("rms_norm");
}

int64_t chunk_rows(int64_t rows) { return std::max(kChunkRows, (rows + 65534) / 65535); }

// rows of partial sums, of either kernel
int64_t partials(int64_t rows) {
  const int64_t chunk = chunk_rows(rows);
  return std::max((rows + chunk - 1) / chunk, kNormChunks);
}

int64_t backward_workspace(const ops::RmsNormBackwardArgs& args, const KernelContext&) {
  if (!args.dweight) return 0;
  const int64_t rows = rows_of(args.x);
  return (rows + partials(rows) * args.x.dim(-1)) * 4;
}

void backward(const ops::RmsNormBackwardArgs& args, const KernelContext& kernel) {
  if (args.x.numel() == 0) return;
  RmsNormLaunch a = common(args.x, args.weight, args.eps, args.offset);
  a.dy = args.dy.data;
  a.dy_stride = args.dy.stride(0);
  a.dy_head_stride = head_stride(args.dy);
  a.packed &= is_packed(args.dy) && is_packed(args.dx) && has_packed_rows(args.dx_add);
  if (args.dx) {
    a.dx = args.dx.data;
    a.dx_stride = args.dx.stride(0);
    a.dx_head_stride = head_stride(args.dx);
  }
  if (args.dx_add) {
    a.dx_add = args.dx_add.data;
    a.dx_add_stride = args.dx_add.stride(0);
  }
  if (args.dweight) {
    a.dweight = args.dweight.as<float>();
    a.partial = static_cast<float*>(kernel.workspace);  // first: its rows are stored in packs
    a.chunk_rows = chunk_rows(a.rows);
    a.rstd = a.partial + partials(a.rows) * a.n;
  }
  launch_rms_norm(stream_of(kernel).handle(), a, true);
  check_launch("rms_norm_backward");
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<RmsNormArgs> kForward[] = {{"row", cuda::decline<RmsNormArgs>, cuda::forward}};
const Candidate<RmsNormBackwardArgs> kBackward[] = {
    {"row", cuda::decline<RmsNormBackwardArgs>, cuda::backward, cuda::backward_workspace}};
}  // namespace
const KernelList<RmsNormArgs> rms_norm_cuda = {"rms_norm", kForward};
const KernelList<RmsNormBackwardArgs> rms_norm_backward_cuda = {"rms_norm_backward", kBackward};
}  // namespace pmetal::ops
