// The primitive ops: enough that any loss of the objectives is a few lines. Arithmetic in f32 (f64 for f64), rounded to
// the output dtype. Differentiable unless said otherwise. Broadcasting: none, but for the scalar and row forms named.
#pragma once

#include <optional>
#include <vector>

#include "tensor/kernel.h"
#include "tensor/tape.h"

namespace pmetal::ops {

Tensor add(Context& ctx, const Tensor& a, const Tensor& b);  // same shape
Tensor sub(Context& ctx, const Tensor& a, const Tensor& b);
Tensor mul(Context& ctx, const Tensor& a, const Tensor& b);
Tensor div(Context& ctx, const Tensor& a, const Tensor& b);
Tensor minimum(Context& ctx, const Tensor& a, const Tensor& b);
Tensor maximum(Context& ctx, const Tensor& a, const Tensor& b);
Tensor affine(Context& ctx, const Tensor& x, float scale, float shift = 0);  // scale · x + shift
Tensor add_row(Context& ctx, const Tensor& x, const Tensor& row);            // [rows, n] + [n]
Tensor mul_row(Context& ctx, const Tensor& x, const Tensor& row);            // [rows, n] · [n]
Tensor mul_column(Context& ctx, const Tensor& x, const Tensor& column);      // [rows, n] · [rows]
enum class Unary : uint8_t {
  kNeg,
  kExp,
  kLog,
  kSigmoid,
  kLogSigmoid,
  kTanh,
  kSqrt,
  kSquare,
  kAbs,
  kRelu,
  kSilu,
  kGelu,
  kReciprocal
};
Tensor unary(Context& ctx, const Tensor& x, Unary op);
Tensor clamp(Context& ctx, const Tensor& x, float low, float high);
Tensor cast(Context& ctx, const Tensor& x, DType dtype);  // can be made again (see Tape)
Tensor softmax(Context& ctx, const Tensor& x);            // over the last dimension
Tensor log_softmax(Context& ctx, const Tensor& x);
Tensor logsumexp(Context& ctx, const Tensor& x);  // [rows, n] -> [rows]
Tensor sum(Context& ctx, const Tensor& x);        // -> [1] f32, pairwise in fixed blocks
Tensor mean(Context& ctx, const Tensor& x);
Tensor sum_rows(Context& ctx, const Tensor& x);  // [rows, n] -> [rows]
Tensor gather_columns(Context& ctx, const Tensor& x,
                      const Tensor& index);  // x[r, index[r]]: [rows, n], [rows] i32 -> [rows]
Tensor gather_rows(Context& ctx, const Tensor& x, const Tensor& index);  // x[index[i], :]: -> [m, n]; index i32
Tensor gather_distinct_rows(Context& ctx, const Tensor& x,
                            const Tensor& index);  // no index twice: the gradient is moved, nothing is added up
Tensor scatter_rows(Context& ctx, const Tensor& x, const Tensor& index,
                    int64_t rows);                             // inverse; other rows are zero; indices distinct
Tensor reshape(Context& ctx, const Tensor& x, Shape shape);    // differentiable view
Tensor split_heads(Context& ctx, const Tensor& x, int64_t n);  // [tokens, n · d] -> [tokens, n, d]: views of rows
Tensor merge_heads(Context& ctx, const Tensor& x);             // [tokens, n, d] -> [tokens, n · d]  of any step
Tensor narrow(Context& ctx, const Tensor& x, int dim, int64_t begin, int64_t length);
Tensor concat_columns(Context& ctx, std::span<const Tensor> parts);  // [rows, n_i] -> [rows, sum n_i]
Tensor concat_rows(Context& ctx, std::span<const Tensor> parts);
Tensor contiguous(Context& ctx, const Tensor& x);
// inverted dropout; the mask is Philox(seed; module, step, token, element) with token = row_ids[row] (i64), so it does
// not depend on packing, micro-batches or recomputation. p = 0 returns x.
struct DropoutKey {
  uint64_t seed = 0;
  uint32_t module = 0, step = 0;
  Tensor step_at;  // [1] i32 where the kernel runs: stands for `step` in work that is recorded once for all steps
};
Tensor dropout(Context& ctx, const Tensor& x, float p, const DropoutKey& key, const Tensor& row_ids);
Tensor stop_gradient(const Tensor& x);

// not differentiable
void fill(Context& ctx, const Tensor& x, double value);
void copy(Context& ctx, const Tensor& from, const Tensor& to);         // same shape, any strides and dtypes
void accumulate(Context& ctx, const Tensor& to, const Tensor& value);  // to += value; undefined value: to = 0
Tensor to_device(Context& ctx, const Tensor& x);                       // host -> the context's device (or x itself)
void upload(Context& ctx, const Tensor& host, const Tensor& to);       // both contiguous, equal shapes and dtypes
Tensor to_host(Context& ctx, const Tensor& x);                         // contiguous; synchronises
float item(Context& ctx, const Tensor& x);                             // one element, synchronises

// Kernel tables of the above; one strided kernel per group. `op` is a Unary or one of these.
enum UnaryCode : int {
  kUnaryAffine = 100,  // a · x + b
  kUnaryClamp,         // to [a, b]
  kUnaryCopy,          // any dtypes
  kUnaryFill,          // a + b (the sum in f64); x is not read
};
struct UnaryArgs {
  View x, y;    // same shape, any strides
  View dy, dx;  // backward: dx = dy · f'(x); y is not needed
  int op = 0;
  float a = 0, b = 0;
};
PMETAL_DECLARE_KERNELS(unary, UnaryArgs)
PMETAL_DECLARE_KERNELS(unary_backward, UnaryArgs)
enum BinaryCode : int {
  kBinaryAdd,
  kBinarySub,
  kBinaryMul,
  kBinaryDiv,
  kBinaryMin,
  kBinaryMax,
  kBinaryLess,  // 1 where a < b, 1/2 where equal, else 0: how a minimum's gradient is shared
};
struct BinaryArgs {
  View a, b, y;  // a and y of one shape; b too, or as `broadcast` says
  int op = 0;
  bool accumulate = false;  // y +=
  int broadcast = 0;        // 0 none; 1: b is [n], one row for all; 2: b is [rows], one value per row
};
PMETAL_DECLARE_KERNELS(binary, BinaryArgs)
enum RowReduceCode : int {
  kRowSoftmax,     // y [rows, n]; backward reads y
  kRowLogSoftmax,  // y [rows, n]; backward reads y
  kRowLogSumExp,   // y [rows]; backward reads x and y
  kRowSum,         // y [rows]; backward reads neither
  kAllSum,         // y [1]: blocks of 4096 elements, then pairwise; backward reads neither
};
struct RowReduceArgs {
  View x, y;
  View dy, dx;
  int op = 0;
};
PMETAL_DECLARE_KERNELS(row_reduce, RowReduceArgs)
PMETAL_DECLARE_KERNELS(row_reduce_backward, RowReduceArgs)
enum IndexCode : int {
  kGatherRows,      // y[i, :] = x[index[i], :]
  kScatterRows,     // y[index[i], :] = x[i, :], other rows zero; with accumulate: y[index[i], :] += in order of i
  kGatherColumns,   // y[r] = x[r, index[r]]
  kScatterColumns,  // y[r, index[r]] = x[r], the row's other columns zero; with accumulate: += and no zeros
};
struct IndexArgs {
  View x, index, y;  // index i32, within bounds (kernels assert)
  int op = 0;
  bool accumulate = false;
};
PMETAL_DECLARE_KERNELS(index_rows, IndexArgs)
struct DropoutArgs {
  View x, y, row_ids;
  float p = 0;
  uint64_t seed = 0;
  uint32_t module = 0, step = 0;
  View step_at;  // [1] i32 in place of `step`, or none
};
PMETAL_DECLARE_KERNELS(dropout, DropoutArgs)
struct TransferArgs {
  const void* from = nullptr;  // one side lies on the device, the other on the host
  void* to = nullptr;
  int64_t size_bytes = 0;
  bool to_host = false;  // waits until the bytes have arrived
};
PMETAL_DECLARE_KERNELS(transfer, TransferArgs)

// the tape that uses these for accumulation
inline Tape make_tape() { return Tape(&accumulate); }
// the same, which keeps what is worth keeping on the context's device
inline Tape make_tape(const Context& ctx) { return Tape(&accumulate, ctx.keeps_values()); }
// Runs `body` without recording and records one node whose backward runs it again with recording. Bits equal.
// `body` maps inputs to one output and must be a pure function of its inputs and of leaves.
Tensor checkpoint(Context& ctx, const Tensor& input, std::function<Tensor(Context&, const Tensor&)> body);

}  // namespace pmetal::ops
