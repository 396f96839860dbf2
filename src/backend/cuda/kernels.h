// What the .cu files offer to the launchers (.cc of the same stem): plain values, views and a stream. Light enough for
// nvcc. Each launch returns after it was queued; the launcher checks for errors (stream.h). Every pointer is device
// memory; every size fits the views.
#pragma once

#include <cstdint>

#include "tensor/view.h"

struct CUstream_st;

namespace pmetal::cuda {

using StreamHandle = CUstream_st*;

inline constexpr int64_t kSumBlock = 4096;  // elements summed at a time where the order is fixed

// Lets a kernel use more than 48 KiB of shared memory on the current device; remembers for which that was done.
struct SharedLimit {
  uint64_t devices = 0;
};
void allow_shared(SharedLimit& limit, const void* kernel, int bytes);

// ---- elementwise; `wide`: f64 arithmetic (f64 and integers); pack: elements a thread takes at a time, 1 or 4 ----
enum UnaryOp : int {
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
  kReciprocal,
  kAffine = 100,
  kClamp,
  kCopy,
  kFill
};
void launch_unary(StreamHandle stream, const View& x, const View& y, int op, double a, double b, bool wide, int pack);
void launch_unary_backward(StreamHandle stream, const View& x, const View& dy, const View& dx, int op, double a,
                           double b, bool wide, int pack);
enum BinaryOp : int { kAdd, kSub, kMul, kDiv, kMin, kMax, kLess };
void launch_binary(StreamHandle stream, const View& a, const View& b, const View& y, int op, bool accumulate, bool wide,
                   int pack);
enum RowReduceOp : int { kRowSoftmax, kRowLogSoftmax, kRowLogSumExp, kRowSum, kAllSum };
void launch_row_reduce(StreamHandle stream, const View& x, const View& y, int op, bool wide, void* workspace);
void launch_row_reduce_backward(StreamHandle stream, const View& x, const View& y, const View& dy, const View& dx,
                                int op, bool wide);
struct DropoutLaunch {
  View x, y, row_ids;
  float p;
  uint32_t seed0, seed1, module, step;
  const int32_t* step_at;  // in place of `step`, or null
  uint32_t purpose;
};
void launch_dropout(StreamHandle stream, const DropoutLaunch& a);

// ---- rows by index (i32) ----
void launch_gather_rows(StreamHandle stream, const View& x, const View& index, const View& y, bool accumulate,
                        int pack);
void launch_scatter_rows(StreamHandle stream, const View& x, const View& index, const View& y);
// y[index[i]] += scale · x[i] in order of i, but for index `skip`
void launch_scatter_add(StreamHandle stream, const View& x, const View& index, const View& y, float scale,
                        int64_t skip);
void launch_gather_columns(StreamHandle stream, const View& x, const View& index, const View& y);
void launch_scatter_columns(StreamHandle stream, const View& x, const View& index, const View& y, bool accumulate);
void launch_embedding(StreamHandle stream, const View& ids, const View& table, const View& y, float scale, int pack);
void launch_kv_append(StreamHandle stream, const View& k, const View& v, const View& k_pages, const View& v_pages,
                      const View& slots, int pack);

// ---- norm, rope, gated activation; strides in elements between rows, columns contiguous ----
struct RmsNormLaunch {
  const void *x, *residual, *weight;
  void *sum, *y;
  const void *dy, *dx_add;
  void* dx;
  float *dweight, *rstd, *partial;  // dweight with rstd [rows] and partial [chunks, n]
  int64_t rows, n;
  int64_t heads;  // rows r of x, y, dy and dx lie at (r / heads) · stride + (r % heads) · head_stride
  int64_t x_stride, residual_stride, sum_stride, y_stride, dy_stride, dx_stride, dx_add_stride;
  int64_t x_head_stride, y_head_stride, dy_head_stride, dx_head_stride;
  int64_t chunk_rows;
  DType dtype, weight_dtype;
  float eps, offset;
  bool packed;  // every row starts on 16 bytes and n is a multiple of 8
};
void launch_rms_norm(StreamHandle stream, const RmsNormLaunch& a, bool backward);
void launch_rope_table(StreamHandle stream, const View& positions, const View& inv_freq, const View& cos,
                       const View& sin, float scale);
void launch_rope(StreamHandle stream, const View& x, const View& y, const View& cos, const View& sin, bool interleaved,
                 bool inverse, bool packed);
struct RopeAppendLaunch {
  View q, k, v, q_norm, k_norm, cos, sin, q_out, k_pages, v_pages, slots;  // see ops/rope_append.h
  float eps;
};
void launch_rope_append(StreamHandle stream, const RopeAppendLaunch& a);
enum Act : int { kActSilu, kActGelu, kActGeluTanh, kActRelu, kActRelu2, kActQuickGelu, kActIdentity };
struct GluLaunch {
  const void *gate, *up, *dy;
  void *y, *dgate, *dup;
  int64_t rows, n, gate_stride, up_stride, y_stride, dy_stride, dgate_stride, dup_stride;
  int activation;
  DType dtype;
  bool packed;
};
void launch_glu(StreamHandle stream, const GluLaunch& a, bool backward);

// ---- low-rank updates: rectangles copied, or f32 ones added ----
struct Rectangle {
  const void* from;
  void* to;
  int64_t rows, columns, from_step, to_step;  // columns and steps in units of what a thread moves at a time
};
struct RectanglesLaunch {
  Rectangle part[8];
  int n;
  int64_t most;  // units of the largest
  int bytes;     // of a unit: 2, 4, 16
  bool adds;     // units of f32
};
void launch_rectangles(StreamHandle stream, const RectanglesLaunch& a);

// ---- optimizer ----
struct AdamWLaunch {
  float *master, *m, *v;
  const float* grad;
  void* weight;
  DType weight_dtype;
  int64_t n;
  float beta1, beta2, c1, c2, decay, step_size, root_scale, eps, grad_scale;
};
void launch_adamw(StreamHandle stream, const AdamWLaunch& a);
void launch_sum_squares(StreamHandle stream, const View& x, double* partial, double* out);

// ---- products ----
// m <= 4 rows of bf16 against up to three bf16 weights that share them; see gemv.cu
struct GemvLaunch {
  struct Part {
    const void *w, *bias;  // w [n, k] contiguous
    void* y;
    int64_t y_stride;
    int n;
    DType bias_dtype;
  } part[3];
  const void *x, *norm, *residual;  // norm [k]: x is normalised first; residual [m, n]: added to the one part's rows
  int64_t x_stride, residual_stride;
  int m, k, parts, activation;
  bool glu;  // part 0 is the gate, part 1 what it gates; the result goes to part 0's y
  bool accumulate;
  bool early;  // the kernel before this one does not write the weights: they may be read while it runs
  DType y_dtype, norm_dtype;
  float eps;
  int multiprocessors;
  int blocks, split, outputs;  // tuning: blocks per multiprocessor, warps that share a row, rows at once; 0: by shape
  int rows;                    // filled by the launch
};
bool gemv_accepts(int64_t m, int64_t k);
void launch_gemv(StreamHandle stream, GemvLaunch a);
struct MatmulLaunch {
  View a, b, c, bias;  // a [m, k] and b [k, n] after any transposition, any strides and dtypes
  bool accumulate;
  float alpha;
};
void launch_matmul_plain(StreamHandle stream, const MatmulLaunch& a);
// a check sum of rows of `row_bytes` (even), `step_bytes` apart, to *out on the device
void launch_hash_rows(StreamHandle stream, const void* c, int64_t rows, int64_t row_bytes, int64_t step_bytes,
                      unsigned long long* out);

// ---- attention; see ops/attention.h for the shapes ----
struct AttentionLaunch {
  View q, k, v, out, lse, cu_q, kv_len, cu_k, page_table, sinks;
  View dout, dq, dk, dv, dsinks;
  float* delta;    // [q_rows, q_heads]
  float* partial;  // [sequences, kv_heads, splits, 16, d_v + 2] of a decode step
  int* taken;      // sm90: counters of pieces taken by a block, one (zero) forward, two backward
  bool causal;
  int window, chunk, group, sequences, splits;  // splits > 0: decode
  int tiles_per_split;                          // decode: 0: equal splits
  int multiprocessors;                          // of the device, for kernels with a block each
  int64_t max_q, max_kv;
  float scale, softcap;
};
void launch_attention(StreamHandle stream, const AttentionLaunch& a);
bool has_sm90_kernels();                                                    // the launches named sm90 were built
void launch_attention_sm90(StreamHandle stream, const AttentionLaunch& a);  // splits == 0
void launch_attention_backward_sm90(StreamHandle stream, const AttentionLaunch& a);  // delta: [q_rows, q_heads, 2]
void launch_attention_decode(StreamHandle stream, const AttentionLaunch& a);         // max_q · group <= 16
void launch_attention_plain(StreamHandle stream, const AttentionLaunch& a);
void launch_attention_delta(StreamHandle stream, const AttentionLaunch& a);  // delta, and dsinks where given
void launch_attention_backward(StreamHandle stream, const AttentionLaunch& a);
void launch_attention_backward_plain(StreamHandle stream, const AttentionLaunch& a);

// ---- drawing ----
inline constexpr int kMostSlices = 64;
struct TopLogitsLaunch {
  const float* logits;
  int32_t *out, *histogram;  // out as in ops/top_logits.h
  float* tops;
  int64_t rows, n, stride, out_stride;
  int want, capacity;
};
int64_t top_logits_workspace(int64_t rows);
void launch_top_logits(StreamHandle stream, const TopLogitsLaunch& a);

// ---- the loss of a chunk of logit rows ----
struct RowLossLaunch {
  float* logits;  // [rows, n]; becomes its gradient in place, bf16 in the first half of each row where `narrows`
  const int32_t* labels;
  const float* row_scale;
  float *nll, *entropy;
  uint8_t* correct;
  int64_t rows, n;
  float logit_scale, softcap, z_loss, smoothing;
  bool gradient, narrows;
};
void launch_row_loss(StreamHandle stream, const RowLossLaunch& a);

}  // namespace pmetal::cuda
