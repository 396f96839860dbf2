#include "backend/cpu/gemm/gemm.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "backend/cpu/gemm/amx_emulated.h"
#include "backend/cpu/gemm/kernels.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/rng.h"

namespace pmetal::cpu {
namespace {

// every level of this machine, and the AMX kernel over emulated tiles
const std::vector<GemmKernels>& levels() {
  static const std::vector<GemmKernels> all = [] {
    std::vector<GemmKernels> v;
    for (Isa level : {Isa::kPlain, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx})
      if (level <= detect_isa()) v.push_back(kernels_for(level));
    v.push_back(amx_emulated_kernels(kernels_for(std::min(detect_isa(), Isa::kAvx512Bf16))));
    return v;
  }();
  return all;
}

// Row-major values in f64, with a typed copy whose rows are `gap` elements longer; the gap holds NaN.
struct TestMatrix {
  int64_t rows, cols, stride;
  DType dtype;
  std::vector<double> values;
  std::vector<char> bytes;

  TestMatrix(PhiloxStream& rng, int64_t rows, int64_t cols, DType dtype, int64_t gap = 0, double scale = 1)
      : rows(rows), cols(cols), stride(cols + gap), dtype(dtype) {
    values.resize(static_cast<size_t>(rows * cols));
    bytes.assign(static_cast<size_t>(rows * stride * size_of(dtype)), '\xff');
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) set(i, j, (rng.uniform() * 2 - 1) * scale);
  }
  void set(int64_t i, int64_t j, double value) {
    char* to = bytes.data() + (i * stride + j) * size_of(dtype);
    convert(&value, DType::kF64, to, dtype, 1);
    convert(to, dtype, &values[static_cast<size_t>(i * cols + j)], DType::kF64, 1);
  }
  double at(int64_t i, int64_t j) const { return values[static_cast<size_t>(i * cols + j)]; }
  double read(int64_t i, int64_t j) const {
    double v = 0;
    convert(bytes.data() + (i * stride + j) * size_of(dtype), dtype, &v, DType::kF64, 1);
    return v;
  }
  ConstMatrix view(int64_t row = 0) const { return {bytes.data() + row * stride * size_of(dtype), dtype, stride}; }
  Matrix out() { return {bytes.data(), dtype, stride}; }
  bool gap_is_untouched() const {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t b = cols * size_of(dtype); b < stride * size_of(dtype); ++b)
        if (bytes[static_cast<size_t>(i * stride * size_of(dtype) + b)] != '\xff') return false;
    return true;
  }
};

struct TestWeight {
  TestMatrix dense;
  Buffer packed;
  TestWeight(PhiloxStream& rng, int64_t n, int64_t k, DType dtype, ThreadPool& pool)
      : dense(rng, n, k, dtype, 3), packed(allocate_host(packed_weight_bytes(dtype, n, k) + 64)) {
    pack_weight_rows(dtype, packed.data(), n, k, 0, n, dense.bytes.data(), dtype, dense.stride, pool);
  }
  WeightMatrix view(WeightLayout layout) const {
    if (layout == WeightLayout::kPacked) return {packed.data(), dense.dtype, layout, 0};
    return {dense.bytes.data(), dense.dtype, layout, dense.stride};
  }
};

template <class Args>
Buffer workspace_for(const Args& args, ThreadPool& pool) {
  const int64_t bytes = workspace_bytes(args, pool.size());
  Buffer b = allocate_host(bytes + 64);
  std::memset(b.data(), 0xff, static_cast<size_t>(bytes + 64));  // NaN: nothing may depend on what was there
  return b;
}
template <class Args>
void expect_workspace_respected(const Args& args, const Buffer& b, ThreadPool& pool) {
  for (int64_t i = workspace_bytes(args, pool.size()); i < b.size_bytes(); ++i) ASSERT_EQ(b.data()[i], std::byte{0xff});
}
void call(const LinearForward& args, ThreadPool& pool) {
  const Buffer w = workspace_for(args, pool);
  linear_forward(args, w.data(), pool);
  expect_workspace_respected(args, w, pool);
}
void call(const LinearGroup& args, ThreadPool& pool) {
  const Buffer w = workspace_for(args, pool);
  linear_group(args, w.data(), pool);
  expect_workspace_respected(args, w, pool);
}
void call(const LinearInputGrad& args, ThreadPool& pool) {
  const Buffer w = workspace_for(args, pool);
  linear_input_grad(args, w.data(), pool);
  expect_workspace_respected(args, w, pool);
}
void call(const LinearWeightGrad& args, ThreadPool& pool) {
  const Buffer w = workspace_for(args, pool);
  linear_weight_grad(args, w.data(), pool);
  expect_workspace_respected(args, w, pool);
}

// f32 chain of `depth` terms whose absolute values sum to `magnitude`, then one rounding to the output type
double tolerance(int64_t depth, double magnitude, double value, DType out) {
  return (static_cast<double>(depth) + 4) * 0x1p-24 * magnitude + 1e-30 +
         (out == DType::kBF16 ? 0x1p-8 * std::abs(value) : 0);
}

const std::vector<DType> kTypes = {DType::kBF16, DType::kF32};
const int64_t kSizes[] = {1, 3, 15, 16, 17, 31, 33, 64, 100};

struct Case {
  int64_t m, n, k;
};
std::vector<Case> cases() {
  std::vector<Case> v = {{0, 5, 7},     {4, 0, 8},     {3, 5, 0},      {1, 16, 32},     {2, 48, 1000},
                         {513, 40, 72}, {37, 600, 96}, {700, 16, 33},  {35, 130, 1100}, {40, 33, 2100},
                         {8, 300, 64},  {13, 70, 40},  {40, 1024, 33}, {33, 20, 1024}};
  PhiloxStream rng(7, RngPurpose::kSynthetic);
  for (int i = 0; i < 40; ++i) v.push_back({kSizes[rng.below(9)], kSizes[rng.below(9)], kSizes[rng.below(9)]});
  return v;
}

TEST(Gemm, forward_matches_f64_at_every_level) {
  ThreadPool pool(2);
  PhiloxStream rng(1, RngPurpose::kSynthetic);
  for (const Case& s : cases())
    for (const DType xt : kTypes)
      for (const DType wt : kTypes) {
        const int extra = static_cast<int>(rng.below(8));
        const DType yt = extra & 1 ? DType::kBF16 : DType::kF32;
        const TestMatrix x(rng, s.m, s.k, xt, 5), bias(rng, 1, s.n, wt), residual(rng, s.m, s.n, xt, 2);
        const TestWeight w(rng, s.n, s.k, wt, pool);
        const TestMatrix old(rng, s.m, s.n, yt, 1);
        for (const GemmKernels& level : levels())
          for (const WeightLayout layout : {WeightLayout::kPacked, WeightLayout::kRowMajor}) {
            TestMatrix y = old;
            LinearForward f;
            f.m = s.m, f.n = s.n, f.k = s.k;
            f.x = x.view(), f.w = w.view(layout), f.y = y.out(), f.kernels = &level;
            f.accumulate = yt == DType::kF32 && (extra & 2);
            if (extra & 4) f.bias = bias.bytes.data(), f.bias_dtype = wt, f.residual = residual.view();
            call(f, pool);
            ASSERT_TRUE(y.gap_is_untouched());
            for (int64_t i = 0; i < s.m; ++i)
              for (int64_t j = 0; j < s.n; ++j) {
                double want = f.accumulate ? old.at(i, j) : 0, magnitude = std::abs(want);
                for (int64_t d = 0; d < s.k; ++d) {
                  want += x.at(i, d) * w.dense.at(j, d);
                  magnitude += std::abs(x.at(i, d) * w.dense.at(j, d));
                }
                if (f.bias) {
                  want += bias.at(0, j) + residual.at(i, j);
                  magnitude += std::abs(bias.at(0, j)) + std::abs(residual.at(i, j));
                }
                ASSERT_NEAR(y.read(i, j), want, tolerance(s.k, magnitude, want, yt))
                    << level.name << " m " << s.m << " n " << s.n << " k " << s.k << " at " << i << ", " << j << " "
                    << name_of(xt) << " " << name_of(wt);
              }
          }
      }
}

TEST(Gemm, input_gradient_matches_f64_at_every_level) {
  ThreadPool pool(2);
  PhiloxStream rng(2, RngPurpose::kSynthetic);
  for (const Case& s : cases())
    for (const DType yt : kTypes)
      for (const DType wt : kTypes) {
        const int extra = static_cast<int>(rng.below(4));
        const DType xt = extra & 1 ? DType::kBF16 : DType::kF32;
        const TestMatrix dy(rng, s.m, s.n, yt, 5);
        const TestWeight w(rng, s.n, s.k, wt, pool);
        const TestMatrix old(rng, s.m, s.k, xt, 1);
        for (const GemmKernels& level : levels())
          for (const WeightLayout layout : {WeightLayout::kPacked, WeightLayout::kRowMajor}) {
            TestMatrix dx = old;
            LinearInputGrad g;
            g.m = s.m, g.n = s.n, g.k = s.k;
            g.dy = dy.view(), g.w = w.view(layout), g.dx = dx.out(), g.kernels = &level;
            const bool adds = (extra & 2) != 0;  // by accumulation or as a residual that is the output itself
            g.accumulate = adds && xt == DType::kF32;
            if (adds && !g.accumulate) g.residual = {dx.bytes.data(), xt, dx.stride};
            call(g, pool);
            ASSERT_TRUE(dx.gap_is_untouched());
            for (int64_t i = 0; i < s.m; ++i)
              for (int64_t j = 0; j < s.k; ++j) {
                double want = adds ? old.at(i, j) : 0, magnitude = std::abs(want);
                for (int64_t d = 0; d < s.n; ++d) {
                  want += dy.at(i, d) * w.dense.at(d, j);
                  magnitude += std::abs(dy.at(i, d) * w.dense.at(d, j));
                }
                ASSERT_NEAR(dx.read(i, j), want, tolerance(s.n, magnitude, want, xt))
                    << level.name << " m " << s.m << " n " << s.n << " k " << s.k << " at " << i << ", " << j << " "
                    << name_of(yt) << " " << name_of(wt);
              }
          }
      }
}

TEST(Gemm, weight_gradient_matches_f64_at_every_level) {
  ThreadPool pool(2);
  PhiloxStream rng(3, RngPurpose::kSynthetic);
  std::vector<Case> all = cases();
  all.push_back({4200, 17, 20});  // more tokens than one piece of packed dYᵀ
  for (const Case& s : all)
    for (const DType yt : kTypes)
      for (const DType xt : kTypes) {
        const TestMatrix dy(rng, s.m, s.n, yt, 5), x(rng, s.m, s.k, xt, 2);
        const TestMatrix old(rng, s.n, s.k, DType::kF32, 1);
        for (const GemmKernels& level : levels())
          for (const bool accumulate : {false, true}) {
            TestMatrix dw = old;
            LinearWeightGrad g;
            g.m = s.m, g.n = s.n, g.k = s.k;
            g.dy = dy.view(), g.x = x.view(), g.dw = dw.out(), g.accumulate = accumulate, g.kernels = &level;
            call(g, pool);
            ASSERT_TRUE(dw.gap_is_untouched());
            for (int64_t i = 0; i < s.n; ++i)
              for (int64_t j = 0; j < s.k; ++j) {
                double want = accumulate ? old.at(i, j) : 0, magnitude = std::abs(want);
                for (int64_t d = 0; d < s.m; ++d) {
                  want += dy.at(d, i) * x.at(d, j);
                  magnitude += std::abs(dy.at(d, i) * x.at(d, j));
                }
                ASSERT_NEAR(dw.read(i, j), want, tolerance(s.m, magnitude, want, DType::kF32))
                    << level.name << " m " << s.m << " n " << s.n << " k " << s.k << " at " << i << ", " << j << " "
                    << name_of(yt) << " " << name_of(xt);
              }
          }
      }
}

TEST(Gemm, f64_products_are_exact_to_f64) {
  ThreadPool pool(2);
  PhiloxStream rng(4, RngPurpose::kSynthetic);
  const int64_t m = 5, n = 7, k = 9;
  const TestMatrix x(rng, m, k, DType::kF64, 1), w(rng, n, k, DType::kF64, 2), dy(rng, m, n, DType::kF64, 1);
  TestMatrix y(rng, m, n, DType::kF64), dx(rng, m, k, DType::kF64), dw(rng, n, k, DType::kF64);
  const WeightMatrix weight{w.bytes.data(), DType::kF64, WeightLayout::kRowMajor, w.stride};
  LinearForward f;
  f.m = m, f.n = n, f.k = k, f.x = x.view(), f.w = weight, f.y = y.out();
  call(f, pool);
  LinearInputGrad g;
  g.m = m, g.n = n, g.k = k, g.dy = dy.view(), g.w = weight, g.dx = dx.out();
  call(g, pool);
  LinearWeightGrad h;
  h.m = m, h.n = n, h.k = k, h.dy = dy.view(), h.x = x.view(), h.dw = dw.out();
  call(h, pool);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double want = 0;
      for (int64_t d = 0; d < k; ++d) want += x.at(i, d) * w.at(j, d);
      EXPECT_NEAR(y.read(i, j), want, 1e-14);
    }
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < k; ++j) {
      double want = 0;
      for (int64_t d = 0; d < n; ++d) want += dy.at(i, d) * w.at(d, j);
      EXPECT_NEAR(dx.read(i, j), want, 1e-14);
    }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j) {
      double want = 0;
      for (int64_t d = 0; d < m; ++d) want += dy.at(d, i) * x.at(d, j);
      EXPECT_NEAR(dw.read(i, j), want, 1e-14);
    }
}

// LoRA's product in the sums of the base product: for kernels on tiles. Its bits, too, are the row's own.
TEST(Gemm, a_second_product_goes_to_the_same_sums) {
  ThreadPool pool(2), one(1);
  PhiloxStream rng(11, RngPurpose::kSynthetic);
  for (const Case& s : std::vector<Case>{{1, 16, 32}, {5, 50, 33}, {33, 100, 70}, {70, 33, 600}, {600, 40, 48}})
    for (const int64_t rank : {1, 16, 40})
      for (const bool backward : {false, true}) {
        const DType t = DType::kBF16, yt = rank == 16 ? DType::kBF16 : DType::kF32;
        const int64_t in = backward ? s.n : s.k, out = backward ? s.k : s.n;
        const TestMatrix x(rng, s.m, in, t, 5), residual(rng, s.m, out, t, 2), low_x(rng, s.m, rank, t, 1);
        const TestMatrix low_w(rng, backward ? rank : out, backward ? out : rank, t, 3), old(rng, s.m, out, yt, 1);
        const TestWeight w(rng, s.n, s.k, t, pool);
        for (const GemmKernels& level : levels()) {
          if (!level.finishes) continue;
          const auto run = [&](int64_t first, int64_t rows, TestMatrix& y, ThreadPool& threads) {
            Matrix to = y.out();
            to.data = static_cast<char*>(to.data) + first * y.stride * size_of(yt);
            const LowRank low{rank, low_x.view(first), low_w.view()};
            if (backward) {
              LinearInputGrad g;
              g.m = rows, g.n = s.n, g.k = s.k, g.dy = x.view(first), g.w = w.view(WeightLayout::kPacked), g.dx = to;
              g.low = low, g.kernels = &level, g.residual = residual.view(first);
              call(g, threads);
            } else {
              LinearForward f;
              f.m = rows, f.n = s.n, f.k = s.k, f.x = x.view(first), f.w = w.view(WeightLayout::kPacked), f.y = to;
              f.low = low, f.kernels = &level, f.residual = residual.view(first);
              call(f, threads);
            }
          };
          TestMatrix y = old, part = old;
          run(0, s.m, y, pool);
          ASSERT_TRUE(y.gap_is_untouched());
          for (int64_t i = 0; i < s.m; ++i)
            for (int64_t j = 0; j < out; ++j) {
              double want = residual.at(i, j), magnitude = std::abs(want);
              for (int64_t d = 0; d < in + rank; ++d) {
                const double weight = d < in ? (backward ? w.dense.at(d, j) : w.dense.at(j, d))
                                             : (backward ? low_w.at(d - in, j) : low_w.at(j, d - in));
                const double term = (d < in ? x.at(i, d) : low_x.at(i, d - in)) * weight;
                want += term;
                magnitude += std::abs(term);
              }
              ASSERT_NEAR(y.read(i, j), want, tolerance(in + rank, magnitude, want, yt)) << level.name << " " << rank;
            }
          const int64_t first = s.m / 2;
          run(first, s.m - first, part, one);
          const auto bytes = [&](const TestMatrix& v) { return v.bytes.data() + first * v.stride * size_of(yt); };
          ASSERT_EQ(std::memcmp(bytes(y), bytes(part), static_cast<size_t>((s.m - first) * y.stride * size_of(yt))), 0);
        }
      }
}

// A norm that reverses each row, and a gate that multiplies: what the driver does with them shows, whatever they are.
void reverse_row(const void* x, const void*, float, int64_t n, void* y) {
  for (int64_t i = 0; i < n; ++i) static_cast<uint16_t*>(y)[i] = static_cast<const uint16_t*>(x)[n - 1 - i];
}
void multiply_by_gate(const FinishArgs& s) {
  for (int64_t r = 0; r < s.rows; ++r)
    for (int64_t i = 0; i < s.n; ++i) {
      const float up = to_f32(to_bf16(s.c[r * s.c_stride + i] + (s.bias ? s.bias[i] : 0)));
      const float gate = to_f32(BF16{s.gate[r * s.gate_stride + i]});
      static_cast<uint16_t*>(s.y)[r * s.y_stride + i] = to_bf16(gate * up).bits;
    }
}

TEST(Gemm, products_that_share_their_input_have_the_bits_of_each_alone) {
  ThreadPool pool(3);
  PhiloxStream rng(13, RngPurpose::kSynthetic);
  const DType t = DType::kBF16;
  struct Shapes {
    int64_t m, k;
    std::array<int64_t, 3> n;
  };
  for (const Shapes& s : {Shapes{1, 32, {16, 16, 16}},
                          {5, 70, {33, 50, 7}},
                          {40, 96, {100, 47, 16}},
                          {70, 2100, {200, 64, 33}},
                          {530, 64, {80, 96, 40}}})
    for (const auto layout : {WeightLayout::kPacked, WeightLayout::kRowMajor})
      for (const bool normed : {false, true}) {
        const TestMatrix x(rng, s.m, s.k, t, 32 - s.k % 32), bias(rng, 1, s.n[0], DType::kF32);
        TestMatrix h = x;
        for (int64_t i = 0; normed && i < s.m; ++i)
          for (int64_t j = 0; j < s.k; ++j) h.set(i, j, x.at(i, s.k - 1 - j));
        std::vector<TestWeight> w;
        for (const int64_t n : s.n) w.emplace_back(rng, n, s.k, t, pool);
        const TestWeight up(rng, s.n[0], s.k, t, pool);
        for (const GemmKernels& level : levels()) {
          LinearGroup g;
          g.m = s.m, g.k = s.k, g.x = x.view(), g.n_parts = 3, g.kernels = &level;
          if (normed) g.norm.row = reverse_row;
          std::vector<TestMatrix> got, want;
          for (size_t p = 0; p < 3; ++p) got.emplace_back(rng, s.m, s.n[p], t, 3), want.push_back(got.back());
          LinearForward f;
          f.m = s.m, f.k = s.k, f.x = h.view(), f.kernels = &level;
          for (size_t p = 0; p < 3; ++p) {
            g.parts[p].n = f.n = s.n[p];
            g.parts[p].w = f.w = w[p].view(layout);
            g.parts[p].y = got[p].out(), f.y = want[p].out();
            g.parts[p].bias = f.bias = p == 0 ? bias.bytes.data() : nullptr;
            call(f, pool);
          }
          call(g, pool);
          for (size_t p = 0; p < 3; ++p)
            ASSERT_EQ(got[p].bytes, want[p].bytes) << level.name << ", " << s.m << " rows of " << s.k << ", part " << p;

          // gated: part 0 by what `up` gives
          TestMatrix of_up = want[0], y = want[0];
          f.n = s.n[0], f.w = up.view(layout), f.bias = nullptr, f.y = of_up.out();
          call(f, pool);
          g.n_parts = 2, g.is_gated = true, g.finish = multiply_by_gate;
          g.parts[0].y = y.out();
          g.parts[1] = {};
          g.parts[1].n = s.n[0], g.parts[1].w = up.view(layout);
          call(g, pool);
          ASSERT_TRUE(y.gap_is_untouched());
          for (int64_t i = 0; i < s.m; ++i)
            for (int64_t j = 0; j < s.n[0]; ++j)
              ASSERT_EQ(y.read(i, j),
                        to_f32(to_bf16(static_cast<float>(want[0].read(i, j)) * static_cast<float>(of_up.read(i, j)))))
                  << level.name << ", " << s.m << " rows of " << s.k << " at " << i << ", " << j;
        }
      }
}

// What a product is added to may be the result itself, in whatever pieces the rows are taken: the last one may be
// small.
TEST(Gemm, a_residual_may_be_the_result) {
  ThreadPool pool(2);
  PhiloxStream rng(13, RngPurpose::kSynthetic);
  for (const Case& s : std::vector<Case>{{40, 40, 16}, {262, 72, 16}, {518, 40, 16}, {542, 100, 48}, {1030, 24, 8}})
    for (const bool backward : {false, true}) {
      const DType t = DType::kBF16;
      const int64_t in = backward ? s.n : s.k, out = backward ? s.k : s.n;
      const TestMatrix x(rng, s.m, in, t, 5), old(rng, s.m, out, t, 2);
      const TestWeight w(rng, s.n, s.k, t, pool);
      for (const GemmKernels& level : levels()) {
        TestMatrix y = old;
        const ConstMatrix itself{y.bytes.data(), t, y.stride};
        if (backward) {
          LinearInputGrad g;
          g.m = s.m, g.n = s.n, g.k = s.k, g.dy = x.view(), g.w = w.view(WeightLayout::kPacked), g.dx = y.out();
          g.kernels = &level, g.residual = itself;
          call(g, pool);
        } else {
          LinearForward f;
          f.m = s.m, f.n = s.n, f.k = s.k, f.x = x.view(), f.w = w.view(WeightLayout::kPacked), f.y = y.out();
          f.kernels = &level, f.residual = itself;
          call(f, pool);
        }
        ASSERT_TRUE(y.gap_is_untouched());
        for (int64_t i = 0; i < s.m; ++i)
          for (int64_t j = 0; j < out; ++j) {
            double want = old.at(i, j), magnitude = std::abs(want);
            for (int64_t d = 0; d < in; ++d) {
              const double term = x.at(i, d) * (backward ? w.dense.at(d, j) : w.dense.at(j, d));
              want += term;
              magnitude += std::abs(term);
            }
            ASSERT_NEAR(y.read(i, j), want, tolerance(in, magnitude, want, t))
                << level.name << " m " << s.m << " n " << s.n << " k " << s.k << " at " << i << ", " << j;
          }
      }
    }
}

// Results that are stored past the caches, which wants aligned rows, have the bits of those that are not.
TEST(Gemm, large_results_have_the_same_bits_wherever_they_lie) {
  ThreadPool pool(2);
  PhiloxStream rng(12, RngPurpose::kSynthetic);
  const int64_t m = 1000, n = 320, k = 72;
  const TestMatrix x(rng, m, k, DType::kBF16);
  const TestWeight w(rng, n, k, DType::kBF16, pool);
  for (const GemmKernels& level : levels()) {
    if (std::string_view(level.name) == "amx_emulated") continue;
    const Buffer aligned = allocate_host(m * n * 2), shifted = allocate_host(m * n * 2 + 2);
    for (std::byte* to : {aligned.data(), shifted.data() + 2}) {
      LinearForward f;
      f.m = m, f.n = n, f.k = k, f.x = x.view(), f.w = w.view(WeightLayout::kPacked);
      f.y = {to, DType::kBF16, n}, f.kernels = &level;
      call(f, pool);
    }
    EXPECT_EQ(std::memcmp(aligned.data(), shifted.data() + 2, static_cast<size_t>(m * n * 2)), 0) << level.name;
  }
}

// The promise of the header: a row's bits depend on nothing but the row, the weights and the level.
TEST(Gemm, bits_of_a_row_do_not_depend_on_its_company) {
  std::vector<std::unique_ptr<ThreadPool>> pools;
  for (int t = 1; t <= 3; ++t) pools.push_back(std::make_unique<ThreadPool>(t));
  PhiloxStream rng(5, RngPurpose::kSynthetic);
  for (int round = 0; round < 60; ++round) {
    const int64_t m = 1 + static_cast<int64_t>(rng.below(round % 10 == 0 ? 900 : 70));
    const int64_t n = 1 + static_cast<int64_t>(rng.below(200));
    const int64_t k = 1 + static_cast<int64_t>(rng.below(round % 5 == 0 ? 2500 : 200));
    const DType xt = kTypes[rng.below(2)], wt = kTypes[rng.below(2)], yt = kTypes[rng.below(2)];
    const TestMatrix x(rng, m, k, xt, static_cast<int64_t>(rng.below(3))), dy(rng, m, n, xt);
    const TestWeight w(rng, n, k, wt, *pools[0]);
    for (const GemmKernels& level : levels()) {
      if (std::string_view(level.name) == "amx_emulated" && m * n * k > 3'000'000) continue;  // seconds of emulation
      TestMatrix whole(rng, m, n, yt), whole_dx(rng, m, k, yt);
      LinearForward f;
      f.m = m, f.n = n, f.k = k, f.x = x.view(), f.w = w.view(WeightLayout::kPacked), f.y = whole.out();
      f.kernels = &level;
      call(f, *pools[0]);
      LinearInputGrad g;
      g.m = m, g.n = n, g.k = k, g.dy = dy.view(), g.w = w.view(WeightLayout::kPacked), g.dx = whole_dx.out();
      g.kernels = &level;
      call(g, *pools[0]);
      for (int cut = 0; cut < 4; ++cut) {
        ThreadPool& pool = *pools[rng.below(3)];
        const int64_t row = static_cast<int64_t>(rng.below(static_cast<uint64_t>(m)));
        const int64_t rows = cut == 0 ? 1 : 1 + static_cast<int64_t>(rng.below(static_cast<uint64_t>(m - row)));
        const WeightLayout layout = cut % 2 == 0 ? WeightLayout::kPacked : WeightLayout::kRowMajor;
        TestMatrix part(rng, rows, n, yt), part_dx(rng, rows, k, yt);
        f.m = rows, f.x = x.view(row), f.w = w.view(layout), f.y = part.out();
        call(f, pool);
        g.m = rows, g.dy = dy.view(row), g.w = w.view(layout), g.dx = part_dx.out();
        call(g, pool);
        ASSERT_EQ(0, std::memcmp(part.bytes.data(), whole.bytes.data() + row * n * size_of(yt), part.bytes.size()))
            << level.name << " m " << m << " n " << n << " k " << k << " rows " << row << " + " << rows << " threads "
            << pool.size();
        ASSERT_EQ(
            0, std::memcmp(part_dx.bytes.data(), whole_dx.bytes.data() + row * k * size_of(yt), part_dx.bytes.size()))
            << level.name << " m " << m << " n " << n << " k " << k << " rows " << row << " + " << rows << " threads "
            << pool.size();
      }
      TestMatrix dw1(rng, n, k, DType::kF32), dw3(rng, n, k, DType::kF32);
      LinearWeightGrad h;
      h.m = m, h.n = n, h.k = k, h.dy = dy.view(), h.x = x.view(), h.kernels = &level;
      h.dw = dw1.out();
      call(h, *pools[0]);
      h.dw = dw3.out();
      call(h, *pools[2]);
      ASSERT_EQ(dw1.bytes, dw3.bytes) << level.name << " m " << m << " n " << n << " k " << k;
    }
  }
}

// Where workers go through the chunks of the depth together, panel by panel.
TEST(Gemm, deep_and_wide_products_have_the_same_bits_with_any_number_of_threads) {
  PhiloxStream rng(13, RngPurpose::kSynthetic);
  ThreadPool one(1);
  const int64_t m = 530, n = 2100, k = 2170, few = 9;
  for (const DType t : kTypes) {
    const TestMatrix x(rng, m, k, t), dy(rng, m, n, t), residual(rng, m, n, t), before(rng, m, k, DType::kF32);
    const TestWeight w(rng, n, k, t, one);
    for (const GemmKernels& level : levels()) {
      if (level.name == std::string_view("amx_emulated") || level.name == std::string_view("plain")) continue;
      const auto both = [&](int64_t first, int64_t rows, ThreadPool& pool) {
        TestMatrix y(rng, rows, n, t), dx = before;
        LinearForward f;
        f.m = rows, f.n = n, f.k = k, f.x = x.view(first), f.w = w.view(WeightLayout::kPacked), f.y = y.out();
        f.residual = residual.view(first), f.kernels = &level;
        call(f, pool);
        LinearInputGrad g;
        g.m = rows, g.n = n, g.k = k, g.dy = dy.view(first), g.w = f.w, g.kernels = &level, g.accumulate = true;
        g.dx = dx.out();
        g.dx.data = dx.bytes.data() + first * k * 4;
        call(g, pool);
        dx.bytes.erase(dx.bytes.begin(), dx.bytes.begin() + first * k * 4);
        return std::pair(y.bytes, dx.bytes);
      };
      const auto expected = both(0, m, one);
      for (const int threads : {2, 3, 5}) {
        ThreadPool pool(threads);
        EXPECT_EQ(both(0, m, pool), expected) << level.name << " " << threads;
      }
      const auto rows = both(m - few, few, one);  // the last rows alone
      EXPECT_TRUE(std::equal(rows.first.rbegin(), rows.first.rend(), expected.first.rbegin())) << level.name;
      EXPECT_TRUE(std::equal(rows.second.rbegin(), rows.second.rend(), expected.second.rbegin())) << level.name;
    }
  }
}

TEST(Gemm, weight_gradient_accumulated_over_pieces_of_32_tokens_has_the_same_bits) {
  ThreadPool pool(2);
  PhiloxStream rng(6, RngPurpose::kSynthetic);
  const int64_t m = 100, n = 20, k = 37;
  for (const DType t : kTypes) {
    const TestMatrix dy(rng, m, n, t), x(rng, m, k, t);
    for (const GemmKernels& level : levels()) {
      TestMatrix whole(rng, n, k, DType::kF32), pieces(rng, n, k, DType::kF32);
      LinearWeightGrad g;
      g.m = m, g.n = n, g.k = k, g.dy = dy.view(), g.x = x.view(), g.dw = whole.out(), g.kernels = &level;
      call(g, pool);
      g.dw = pieces.out();
      for (int64_t row = 0; row < m; row += 32) {
        g.m = std::min<int64_t>(32, m - row), g.dy = dy.view(row), g.x = x.view(row), g.accumulate = row > 0;
        call(g, pool);
      }
      EXPECT_EQ(whole.bytes, pieces.bytes) << level.name;
    }
  }
}

TEST(Gemm, nan_and_infinity_stay_in_their_row) {
  ThreadPool pool(2);
  PhiloxStream rng(8, RngPurpose::kSynthetic);
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (const int64_t m : {3, 40})
    for (const DType t : kTypes) {
      const int64_t n = 21, k = 45;
      TestMatrix x(rng, m, k, t, 1);
      const TestMatrix clean = x;
      const TestWeight w(rng, n, k, t, pool);
      x.set(0, 44, nan);
      x.set(2, 7, inf);
      for (const GemmKernels& level : levels()) {
        TestMatrix y(rng, m, n, DType::kF32), want(rng, m, n, DType::kF32);
        LinearForward f;
        f.m = m, f.n = n, f.k = k, f.x = x.view(), f.w = w.view(WeightLayout::kPacked), f.y = y.out(),
        f.kernels = &level;
        call(f, pool);
        f.x = clean.view(), f.y = want.out();
        call(f, pool);
        for (int64_t j = 0; j < n; ++j) {
          EXPECT_TRUE(std::isnan(y.read(0, j))) << level.name;
          EXPECT_EQ(y.read(2, j), w.dense.at(j, 7) > 0 ? inf : -inf) << level.name;
          for (int64_t i = 1; i < m; ++i) {
            if (i == 2) continue;
            EXPECT_EQ(y.read(i, j), want.read(i, j)) << level.name;
          }
        }
      }
    }
}

TEST(Gemm, rounding_to_bf16_is_to_nearest_even_at_every_level) {
  ThreadPool pool(1);
  // 1 + 2^-8 and 1 + 3·2^-8 lie halfway between bf16 neighbours; NaN and subnormals keep their kind
  const std::vector<float> values = {1.00390625f, 1.01171875f, 1.003906369f, -1.00390625f, 3.4028235e38f, 0.f, -0.f};
  for (const GemmKernels& level : levels()) {
    std::vector<BF16> y(values.size());
    FinishArgs f;
    f.c = values.data(), f.y = y.data(), f.y_dtype = DType::kBF16, f.n = static_cast<int64_t>(values.size());
    level.finish(f);
    const uint16_t want[] = {0x3f80, 0x3f82, 0x3f81, 0xbf80, 0x7f80, 0x0000, 0x8000};
    for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(y[i].bits, want[i]) << level.name << " " << values[i];
    std::vector<float> many(40, std::numeric_limits<float>::quiet_NaN());
    for (size_t i = 0; i < many.size(); i += 2) many[i] = std::numeric_limits<float>::denorm_min() * 65536;
    std::vector<BF16> out(many.size());
    f.c = many.data(), f.y = out.data(), f.n = 40;
    level.finish(f);
    for (size_t i = 0; i < many.size(); ++i)
      if (i % 2 == 0)
        EXPECT_EQ(out[i].bits, 1) << level.name;
      else
        EXPECT_TRUE(std::isnan(to_f32(out[i]))) << level.name;
  }
}

TEST(PackedWeight, rows_come_back_whatever_the_ranges) {
  ThreadPool pool(2);
  PhiloxStream rng(9, RngPurpose::kSynthetic);
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {16, 32}, {50, 33}, {33, 70}, {128, 64}})
    for (const DType from : kTypes)
      for (const DType type : kTypes) {
        const TestMatrix w(rng, n, k, from, 2);
        const Buffer packed = allocate_host(packed_weight_bytes(type, n, k));
        for (int64_t row = 0; row < n; row += 32)
          pack_weight_rows(type, packed.data(), n, k, row, std::min(n, row + 32), w.view(row).data, from, w.stride,
                           pool);
        for (const DType to : kTypes) {
          TestMatrix back(rng, n, k, to, 1);
          unpack_weight_rows(type, packed.data(), n, k, 0, n / 2, back.bytes.data(), to, back.stride);
          unpack_weight_rows(type, packed.data(), n, k, n / 2, n, back.bytes.data() + n / 2 * back.stride * size_of(to),
                             to, back.stride);
          const bool rounds = type == DType::kBF16 || to == DType::kBF16;
          for (int64_t i = 0; i < n; ++i)
            for (int64_t j = 0; j < k; ++j) {
              const auto v = static_cast<float>(w.at(i, j));
              ASSERT_EQ(static_cast<float>(back.read(i, j)), rounds ? to_f32(to_bf16(v)) : v);
            }
          ASSERT_TRUE(back.gap_is_untouched());
        }
      }
}

// The layout is a format that other kernels rely on: element (n, k) by the formula of the header.
TEST(PackedWeight, bf16_tile_and_f32_panel_lie_as_documented) {
  ThreadPool pool(1);
  PhiloxStream rng(10, RngPurpose::kSynthetic);
  const int64_t n = 35, k = 70;
  const TestMatrix w(rng, n, k, DType::kBF16);
  const Buffer tile = allocate_host(packed_weight_bytes(DType::kBF16, n, k));
  const Buffer panel = allocate_host(packed_weight_bytes(DType::kF32, n, k));
  ASSERT_EQ(packed_weight_bytes(DType::kBF16, n, k), 3 * 3 * 1024);
  ASSERT_EQ(packed_weight_bytes(DType::kF32, n, k), 3 * 70 * 64);
  pack_weight_rows(DType::kBF16, tile.data(), n, k, 0, n, w.bytes.data(), DType::kBF16, k, pool);
  pack_weight_rows(DType::kF32, panel.data(), n, k, 0, n, w.bytes.data(), DType::kBF16, k, pool);
  for (int64_t i = 0; i < 48; ++i)
    for (int64_t j = 0; j < 96; ++j) {
      const float want = i < n && j < k ? static_cast<float>(w.at(i, j)) : 0.f;
      const int64_t at = (i / 16 * 3 + j / 32) * 512 + j % 32 / 2 * 32 + i % 16 * 2 + j % 2;
      ASSERT_EQ(to_f32(reinterpret_cast<const BF16*>(tile.data())[at]), want) << i << ", " << j;
      if (j < k) {
        ASSERT_EQ(reinterpret_cast<const float*>(panel.data())[(i / 16 * k + j) * 16 + i % 16], want);
      }
    }
}

TEST(GemmPrimitives, agree_with_the_plain_ones) {
  PhiloxStream rng(11, RngPurpose::kSynthetic);
  std::vector<uint32_t> from(16 * 40 * 2);
  for (uint32_t& v : from) v = rng.next_u32();
  for (const GemmKernels& level : levels()) {
    std::vector<uint32_t> want(16 * 20), got(16 * 20);
    plain_kernels().transpose16(from.data(), 160, want.data(), 80);
    level.transpose16(from.data(), 160, got.data(), 80);
    EXPECT_EQ(got, want) << level.name;
    plain_kernels().interleave(from.data(), 120, want.data());
    level.interleave(from.data(), 120, got.data());
    EXPECT_EQ(got, want) << level.name;
    plain_kernels().retile(from.data(), want.data(), want.data() + 128);
    level.retile(from.data(), got.data(), got.data() + 128);
    EXPECT_EQ(got, want) << level.name;
  }
}

TEST(Isa, cap_is_parsed_and_an_unknown_one_refused) {
  EXPECT_EQ(parse_max_isa(""), Isa::kAmx);
  EXPECT_EQ(parse_max_isa("amx"), Isa::kAmx);
  EXPECT_EQ(parse_max_isa("avx512"), Isa::kAvx512Bf16);
  EXPECT_EQ(parse_max_isa("avx2"), Isa::kAvx2);
  EXPECT_EQ(parse_max_isa("plain"), Isa::kPlain);
  try {
    parse_max_isa("sse9");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage);
    EXPECT_NE(std::string(e.what()).find("sse9"), std::string::npos);
  }
}

}  // namespace
}  // namespace pmetal::cpu
