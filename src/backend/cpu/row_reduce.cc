// row_reduce, plain: softmax, log-softmax, log-sum-exp and sums over the last dimension; the sum of everything.
//   softmax      dx = y · (dy − Σ dy·y)        log-softmax  dx = dy − exp(y) · Σ dy
//   log-sum-exp  dx = exp(x − y) · dy          sums         dx = dy
#include "backend/cpu/elementwise.h"
#include "backend/cpu/plain.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

using ops::RowReduceArgs;

constexpr int64_t kSumBlock = 4096;

template <class A>
struct RowSource {
  const Rows& rows;
  int64_t row;
  // body(values, first column, n) over the row's blocks
  template <class Body>
  void blocks(Body&& body) const {
    A scratch[kBlock];
    for (int64_t c = 0; c < rows.n; c += kBlock) {
      const int64_t n = std::min(kBlock, rows.n - c);
      body(read(rows.v, rows.offset(row) + c * rows.step, rows.step, n, scratch), c, n);
    }
  }
};

template <class A>
struct LogSum {
  A max, sum;
};

// max and Σ exp(x − max). A row of −inf has max −inf, sum 0; a NaN makes both NaN.
template <class A>
LogSum<A> log_sum(const RowSource<A>& row) {
  A max = -std::numeric_limits<A>::infinity(), sum = 0;
  bool nan = false;
  row.blocks([&](const A* x, int64_t, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      max = x[i] > max ? x[i] : max;
      nan |= x[i] != x[i];
    }
  });
  if (nan) return {std::numeric_limits<A>::quiet_NaN(), std::numeric_limits<A>::quiet_NaN()};
  if (max == -std::numeric_limits<A>::infinity()) return {max, 0};
  row.blocks([&](const A* x, int64_t, int64_t n) {
    A e[kBlock];
    for (int64_t i = 0; i < n; ++i) e[i] = exp_of(x[i] - max);
    sum += total(e, n);
  });
  return {max, sum};
}

template <class A>
void all_sum(const RowReduceArgs& args, const KernelContext& kernel) {
  const View x = is_contiguous(args.x) ? flattened(args.x) : args.x;
  const Rows rows(x);
  const int64_t per_row = (rows.n + kSumBlock - 1) / kSumBlock, blocks = rows.rows * per_row;
  A* partial = static_cast<A*>(kernel.workspace);
  kernel.threads->parallel_for(blocks, 4, [&](int64_t begin, int64_t end) {
    A scratch[kSumBlock];
    for (int64_t b = begin; b < end; ++b) {
      const int64_t c = b % per_row * kSumBlock, n = std::min(kSumBlock, rows.n - c);
      partial[b] = total(read(x, rows.offset(b / per_row) + c * rows.step, rows.step, n, scratch), n);
    }
  });
  int64_t left = blocks;
  for (; left > 1; left = (left + 1) / 2)
    for (int64_t i = 0; i < (left + 1) / 2; ++i)
      partial[i] = 2 * i + 1 < left ? partial[2 * i] + partial[2 * i + 1] : partial[2 * i];
  const A result = blocks ? partial[0] : A{0};
  store(args.y, 0, 1, 1, &result);
}

template <class A>
void forward(const RowReduceArgs& args, const KernelContext& kernel) {
  if (args.op == ops::kAllSum) return all_sum<A>(args, kernel);
  const Rows x(args.x), y(args.y);
  for_rows(kernel, x.rows, x.n, [&](int64_t r) {
    const RowSource<A> row{x, r};
    if (args.op == ops::kRowSum) {
      A sum = 0;
      row.blocks([&](const A* v, int64_t, int64_t n) { sum += total(v, n); });
      store(args.y, r * args.y.stride(0), 1, 1, &sum);
      return;
    }
    const LogSum<A> s = log_sum(row);
    const A log_of_sum = std::log(s.sum), lse = s.max + log_of_sum;
    if (args.op == ops::kRowLogSumExp) {
      store(args.y, r * args.y.stride(0), 1, 1, &lse);
      return;
    }
    const bool empty = s.sum == 0;  // all −inf: zeros, and −inf in the logarithm
    row.blocks([&](const A* v, int64_t c, int64_t n) {
      A out[kBlock];
      if (args.op == ops::kRowSoftmax) {
        for (int64_t i = 0; i < n; ++i) out[i] = empty ? A{0} : exp_of(v[i] - s.max) / s.sum;
      } else {
        for (int64_t i = 0; i < n; ++i) out[i] = empty ? s.max : (v[i] - s.max) - log_of_sum;
      }
      store(args.y, y.offset(r) + c * y.step, y.step, n, out);
    });
  });
}

template <class A>
void backward(const RowReduceArgs& args, const KernelContext& kernel) {
  const Rows x(args.x), y(args.y), dy(args.dy), dx(args.dx);
  for_rows(kernel, dx.rows, dx.n, [&](int64_t r) {
    A a[kBlock], d[kBlock], out[kBlock], value = 0, lse = 0;
    const auto at = [&](const Rows& rows, int64_t c) { return rows.offset(r) + c * rows.step; };
    switch (args.op) {
      case ops::kRowSoftmax:
        for (int64_t c = 0; c < dx.n; c += kBlock) {
          const int64_t n = std::min(kBlock, dx.n - c);
          value += dot(read(args.y, at(y, c), y.step, n, a), read(args.dy, at(dy, c), dy.step, n, d), n);
        }
        break;
      case ops::kRowLogSoftmax:
        for (int64_t c = 0; c < dx.n; c += kBlock) {
          const int64_t n = std::min(kBlock, dx.n - c);
          value += total(read(args.dy, at(dy, c), dy.step, n, d), n);
        }
        break;
      case ops::kAllSum: load(args.dy, 0, 1, 1, &value); break;
      case ops::kRowLogSumExp: load(args.y, r * args.y.stride(0), 1, 1, &lse); [[fallthrough]];
      default: load(args.dy, r * args.dy.stride(0), 1, 1, &value);
    }
    for (int64_t c = 0; c < dx.n; c += kBlock) {
      const int64_t n = std::min(kBlock, dx.n - c);
      switch (args.op) {
        case ops::kRowSoftmax: {
          const A *p = read(args.y, at(y, c), y.step, n, a), *g = read(args.dy, at(dy, c), dy.step, n, d);
          for (int64_t i = 0; i < n; ++i) out[i] = p[i] * (g[i] - value);
          break;
        }
        case ops::kRowLogSoftmax: {
          const A *p = read(args.y, at(y, c), y.step, n, a), *g = read(args.dy, at(dy, c), dy.step, n, d);
          for (int64_t i = 0; i < n; ++i) out[i] = g[i] - exp_of(p[i]) * value;
          break;
        }
        case ops::kRowLogSumExp: {
          const A* v = read(args.x, at(x, c), x.step, n, a);
          const bool empty = lse == -std::numeric_limits<A>::infinity();
          for (int64_t i = 0; i < n; ++i) out[i] = empty ? A{0} : exp_of(v[i] - lse) * value;
          break;
        }
        default: std::fill(out, out + n, value);
      }
      store(args.dx, at(dx, c), dx.step, n, out);
    }
  });
}

}  // namespace

int64_t row_reduce_plain_workspace(const RowReduceArgs& args, const KernelContext&) {
  const Rows rows(args.x);
  return args.op == ops::kAllSum && rows.n ? std::max(rows.rows * ((rows.n + kSumBlock - 1) / kSumBlock),
                                                      (args.x.numel() + kSumBlock - 1) / kSumBlock) *
                                                 8
                                           : 0;
}

void row_reduce_plain(const RowReduceArgs& args, const KernelContext& kernel) {
  with_accumulator(args.x.dtype, [&](auto zero) { forward<decltype(zero)>(args, kernel); });
}

void row_reduce_backward_plain(const RowReduceArgs& args, const KernelContext& kernel) {
  with_accumulator(args.dx.dtype, [&](auto zero) { backward<decltype(zero)>(args, kernel); });
}

}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
const Candidate<RowReduceArgs> kForward[] = {
    {"plain", nullptr, cpu::row_reduce_plain, cpu::row_reduce_plain_workspace}};
const Candidate<RowReduceArgs> kBackward[] = {{"plain", nullptr, cpu::row_reduce_backward_plain}};
}  // namespace
const KernelList<RowReduceArgs> row_reduce_cpu = {"row_reduce", kForward};
const KernelList<RowReduceArgs> row_reduce_backward_cpu = {"row_reduce_backward", kBackward};
}  // namespace pmetal::ops
