// Launchers of the primitive ops: unary, binary, row_reduce, index_rows, dropout, transfer.
#include "ops/elementwise.h"

#include "backend/cuda/launch.h"
#include "base/rng.h"

namespace pmetal::cuda {
namespace {

using namespace ops;

static_assert(static_cast<int>(Unary::kReciprocal) == kReciprocal && static_cast<int>(Unary::kSilu) == kSilu &&
              kUnaryAffine == kAffine && kUnaryClamp == kClamp && kUnaryCopy == kCopy && kUnaryFill == kFill);
static_assert(kBinaryAdd == kAdd && kBinaryMin == kMin && kBinaryLess == kLess);
static_assert(static_cast<int>(ops::kRowSum) == static_cast<int>(cuda::kRowSum) &&
              static_cast<int>(ops::kAllSum) == static_cast<int>(cuda::kAllSum));

const char* decline_bytes(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kBF16:
    case DType::kF16:
    case DType::kF64:
    case DType::kI32:
    case DType::kI64:
    case DType::kU8:
    case DType::kBool: return nullptr;
    default: return "the element type has no arithmetic on the device";
  }
}

void run_unary(const UnaryArgs& args, const KernelContext& kernel) {
  if (args.y.numel() == 0) return;
  View x = args.op == kUnaryFill ? args.y : args.x, y = args.y;
  const bool wide = is_wide(y.dtype) || is_wide(x.dtype);
  merge_dimensions({&y, &x});
  double a = args.a, b = args.b;
  if (args.op == kUnaryFill) a += b;
  launch_unary(stream_of(kernel).handle(), x, y, args.op, a, b, wide, pack_of({&x, &y}));
  check_launch("unary");
}

void run_unary_backward(const UnaryArgs& args, const KernelContext& kernel) {
  if (args.dx.numel() == 0) return;
  View x = args.x, dy = args.dy, dx = args.dx;
  merge_dimensions({&dx, &x, &dy});
  launch_unary_backward(stream_of(kernel).handle(), x, dy, dx, args.op, args.a, args.b, is_double(dx.dtype),
                        pack_of({&x, &dy, &dx}));
  check_launch("unary_backward");
}

void run_binary(const BinaryArgs& args, const KernelContext& kernel) {
  if (args.y.numel() == 0) return;
  View a = args.a, b = args.b, y = args.y;
  if (args.broadcast) {  // b as a view of y's shape
    const int64_t step = b.strides[0];
    b.rank = y.rank;
    for (int i = 0; i < y.rank; ++i) {
      b.shape[i] = y.shape[i];
      b.strides[i] = 0;
    }
    if (args.broadcast == 1) {
      b.strides[y.rank - 1] = step;
    } else {
      int64_t rows = step;  // one value per row, rows being all dimensions but the last
      for (int i = y.rank - 2; i >= 0; --i) {
        b.strides[i] = rows;
        rows *= y.shape[i];
      }
    }
  }
  merge_dimensions({&y, &a, &b});
  int pack = pack_of({&a, &y});
  if (pack == 4) pack = pack_of({&b}, true);
  launch_binary(stream_of(kernel).handle(), a, b, y, args.op, args.accumulate,
                is_double(args.a.dtype) || is_double(args.b.dtype), pack);
  check_launch("binary");
}

int64_t row_reduce_workspace(const RowReduceArgs& args, const KernelContext&) {
  return args.op == ops::kAllSum ? (args.x.numel() + kSumBlock - 1) / kSumBlock * 8 : 0;
}

void run_row_reduce(const RowReduceArgs& args, const KernelContext& kernel) {
  if (args.x.numel() == 0 && args.op != ops::kAllSum && args.op != ops::kRowSum) return;
  if (args.y.numel() == 0) return;
  View x = args.x;
  if (args.op == ops::kAllSum) merge_dimensions({&x});
  launch_row_reduce(stream_of(kernel).handle(), x, args.y, args.op, is_double(x.dtype), kernel.workspace);
  check_launch("row_reduce");
}

void run_row_reduce_backward(const RowReduceArgs& args, const KernelContext& kernel) {
  if (args.dx.numel() == 0) return;
  launch_row_reduce_backward(stream_of(kernel).handle(), args.x, args.y, args.dy, args.dx, args.op,
                             is_double(args.dx.dtype));
  check_launch("row_reduce_backward");
}

void run_index(const IndexArgs& args, const KernelContext& kernel) {
  if (args.y.numel() == 0) return;
  const cudaStream_t stream = stream_of(kernel).handle();
  const View &x = args.x, &y = args.y;
  switch (args.op) {
    case kGatherRows:
      launch_gather_rows(stream, x, args.index, y, args.accumulate,
                         is_wide(x.dtype) || is_wide(y.dtype) ? 1 : pack_of({&x, &y}));
      break;
    case kScatterRows:
      if (args.accumulate) {
        if (x.dim(0)) launch_scatter_add(stream, x, args.index, y, 1, -1);
        break;
      }
      run_unary({.y = y, .op = kUnaryFill}, kernel);
      if (x.dim(0)) launch_scatter_rows(stream, x, args.index, y);
      break;
    case kGatherColumns: launch_gather_columns(stream, x, args.index, y); break;
    case kScatterColumns: launch_scatter_columns(stream, x, args.index, y, args.accumulate); break;
    default: PMETAL_ASSERT(false, "index code {}", args.op);
  }
  check_launch("index_rows");
}

const char* decline_index(const IndexArgs& args, const KernelContext&) {
  if (args.op == kScatterRows && args.accumulate && (is_wide(args.x.dtype) || is_wide(args.y.dtype)))
    return "rows of integers or f64 are not added on the device";
  return decline_bytes(args.x.dtype);
}

void run_dropout(const DropoutArgs& args, const KernelContext& kernel) {
  if (args.x.numel() == 0) return;
  const auto seed = philox_key(args.seed);
  DropoutLaunch a{args.x, args.y, args.row_ids, args.p, seed[0], seed[1], args.module, args.step, nullptr};
  a.purpose = static_cast<uint32_t>(RngPurpose::kDropout) << 8;
  if (args.step_at) a.step_at = args.step_at.as<int32_t>();
  launch_dropout(stream_of(kernel).handle(), a);
  check_launch("dropout");
}

void run_transfer(const TransferArgs& args, const KernelContext& kernel) {
  if (args.size_bytes == 0) return;
  Stream& stream = stream_of(kernel);
  if (args.to_host)
    stream.download(args.from, args.to, args.size_bytes);
  else
    stream.upload(args.from, args.to, args.size_bytes);
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const char* decline_unary(const UnaryArgs& args, const KernelContext&) {
  const char* why = args.op == kUnaryFill ? nullptr : cuda::decline_bytes(args.x.dtype);
  return why ? why : cuda::decline_bytes(args.y.dtype);
}
const char* decline_f64(const DropoutArgs& args, const KernelContext&) {
  return args.x.dtype == DType::kF64 ? "f64 runs on the CPU" : nullptr;
}
const Candidate<UnaryArgs> kUnary[] = {{"strided", decline_unary, cuda::run_unary}};
const Candidate<UnaryArgs> kUnaryBackward[] = {{"strided", nullptr, cuda::run_unary_backward}};
const Candidate<BinaryArgs> kBinary[] = {{"strided", nullptr, cuda::run_binary}};
const Candidate<RowReduceArgs> kRowReduce[] = {{"block", nullptr, cuda::run_row_reduce, cuda::row_reduce_workspace}};
const Candidate<RowReduceArgs> kRowReduceBackward[] = {{"block", nullptr, cuda::run_row_reduce_backward}};
const Candidate<IndexArgs> kIndex[] = {{"ordered", cuda::decline_index, cuda::run_index}};
const Candidate<DropoutArgs> kDropout[] = {{"philox", decline_f64, cuda::run_dropout}};
const Candidate<TransferArgs> kTransfer[] = {{"pinned", nullptr, cuda::run_transfer}};
}  // namespace
const KernelList<UnaryArgs> unary_cuda = {"unary", kUnary};
const KernelList<UnaryArgs> unary_backward_cuda = {"unary_backward", kUnaryBackward};
const KernelList<BinaryArgs> binary_cuda = {"binary", kBinary};
const KernelList<RowReduceArgs> row_reduce_cuda = {"row_reduce", kRowReduce};
const KernelList<RowReduceArgs> row_reduce_backward_cuda = {"row_reduce_backward", kRowReduceBackward};
const KernelList<IndexArgs> index_rows_cuda = {"index_rows", kIndex};
const KernelList<DropoutArgs> dropout_cuda = {"dropout", kDropout};
const KernelList<TransferArgs> transfer_cuda = {"transfer", kTransfer};
}  // namespace pmetal::ops
