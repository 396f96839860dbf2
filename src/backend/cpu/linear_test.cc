// Every candidate of linear and matmul that runs on this machine against the plain one: odd sizes, strided rows, all
// type pairs, accumulation, rows that are NaN; and the promise on bits.
#include "ops/linear.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "ops/elementwise.h"

namespace pmetal::ops {
namespace {

Context make_context(int threads = 2) { return Context(std::make_shared<ThreadPool>(threads)); }

Tensor random_tensor(PhiloxStream& rng, const Shape& shape, DType dtype) {
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  for (float& v : values) v = static_cast<float>(rng.normal());
  Tensor t(allocate_host(shape.numel() * size_of(dtype)), shape, dtype);
  convert(values.data(), DType::kF32, t.bytes(), dtype, t.numel());
  return t;
}

std::vector<float> values_of(Context& ctx, const Tensor& t) {
  Tensor f = ctx.empty(t.shape(), DType::kF32);
  copy(ctx, t, f);
  return {f.data<float>(), f.data<float>() + f.numel()};
}

template <class Args>
void run(Context& ctx, const Candidate<Args>& candidate, const Args& args) {
  KernelContext kernel{&ctx.threads(), nullptr, 0, nullptr, 0};
  Buffer workspace;
  if (candidate.workspace) {
    kernel.workspace_bytes = candidate.workspace(args, kernel);
    workspace = ctx.allocator().allocate(kernel.workspace_bytes);
    kernel.workspace = workspace.data();
  }
  candidate.run(args, kernel);
}

template <class Args>
bool declines(Context& ctx, const Candidate<Args>& candidate, const Args& args) {
  return candidate.decline && candidate.decline(args, {&ctx.threads(), nullptr, 0, nullptr, 0});
}

// Operands are bf16 or f32, sums f32: the error is that of the sums (K rounding errors of partial sums of size √K) and
// of one rounding to the output's type.
void expect_close(Context& ctx, const Tensor& got, const Tensor& expected, int64_t inner, const std::string& what) {
  const std::vector<float> a = values_of(ctx, got), b = values_of(ctx, expected);
  const double unit = got.dtype() == DType::kF32 ? 0 : 0x1p-7;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(b[i])) {
      ASSERT_TRUE(std::isnan(a[i])) << what << " at " << i;
      continue;
    }
    ASSERT_NEAR(a[i], b[i], 2e-7 * static_cast<double>(inner) + 2e-6 + unit * std::abs(b[i])) << what << " at " << i;
  }
}

quant::Weight weight_of(std::string_view format, const Tensor& values) {
  quant::Weight dense = quant::allocate(quant::format("f32"), values.dim(0), values.dim(1));
  convert(values.bytes(), values.dtype(), dense.planes[0].bytes.data(), DType::kF32, values.numel());
  ThreadPool threads(2);
  return quant::repack(dense, quant::format(format), threads);
}

TEST(Linear, Candidates_equal_the_plain_kernel) {
  Context ctx = make_context();
  PhiloxStream rng(1, RngPurpose::kSynthetic);
  int compared = 0;
  for (const auto [m, n, k] : {std::array<int64_t, 3>{0, 5, 7},
                               {1, 1, 1},
                               {1, 33, 70},
                               {3, 16, 32},
                               {7, 100, 129},
                               {40, 47, 300},
                               {129, 65, 31},
                               {5, 48, 2500}})
    for (const char* format : {"bf16", "f32", "bf16_tile", "f32_panel", "f16"})
      for (const DType x_type : {DType::kBF16, DType::kF32, DType::kF16})
        for (const DType y_type : {DType::kBF16, DType::kF32})
          for (const bool transposed : {false, true})
            for (const bool accumulate : {false, true}) {
              const quant::Weight weight = weight_of(format, random_tensor(rng, {n, k}, DType::kBF16));
              const int64_t inner = transposed ? n : k, outer = transposed ? k : n;
              const Tensor wide = random_tensor(rng, {m, inner + 3}, x_type), x = wide.narrowed(1, 2, inner);
              const Tensor bias = random_tensor(rng, {outer}, DType::kBF16);
              const Tensor before = random_tensor(rng, {m, outer + 5}, y_type);
              LinearArgs args;
              args.x = x.view();
              args.weight = &weight;
              if (!transposed) args.bias = bias.view();
              args.transposed = transposed;
              args.accumulate = accumulate;
              const auto result = [&](const Candidate<LinearArgs>& candidate) {
                Tensor y = ctx.empty(before.shape(), y_type);
                copy(ctx, before, y);
                args.y = y.narrowed(1, 1, outer).view();
                run(ctx, candidate, args);
                return y;
              };
              args.y = before.narrowed(1, 1, outer).view();
              const Tensor expected = result(linear_cpu.candidates.back());
              for (const auto& candidate : linear_cpu.candidates.first(linear_cpu.candidates.size() - 1)) {
                if (declines(ctx, candidate, args)) continue;
                ++compared;
                expect_close(ctx, result(candidate), expected, inner,
                             fmt::format("{} {} {} x {} y {} [{}, {}, {}]{}{}", candidate.name, format,
                                         transposed ? "transposed" : "", name_of(x_type), name_of(y_type), m, n, k,
                                         accumulate ? " accumulating" : "", ""));
                if (HasFatalFailure()) return;
              }
            }
  EXPECT_GT(compared, 0) << "no tuned candidate runs here";
}

TEST(Matmul, Candidates_equal_the_plain_kernel) {
  Context ctx = make_context();
  PhiloxStream rng(2, RngPurpose::kSynthetic);
  int compared = 0;
  for (const auto [m, n, k] : {std::array<int64_t, 3>{0, 5, 7},
                               {5, 3, 0},
                               {1, 1, 1},
                               {3, 16, 32},
                               {7, 100, 129},
                               {40, 47, 300},
                               {16, 31, 2500},
                               {130, 16, 70},  // the turned product
                               {87, 5, 33}})
    for (const DType a_type : {DType::kBF16, DType::kF32})
      for (const DType b_type : {DType::kBF16, DType::kF32})
        for (const DType c_type : {DType::kBF16, DType::kF32})
          for (const int transpose : {0, 1, 2, 3})
            for (const float alpha : {1.f, -0.5f})
              for (const bool accumulate : {false, true}) {
                const bool ta = transpose & 1, tb = transpose & 2;
                const Tensor a = random_tensor(rng, ta ? Shape{k, m} : Shape{m, k}, a_type);
                const Tensor b = random_tensor(rng, tb ? Shape{n, k} : Shape{k, n}, b_type);
                const Tensor before = random_tensor(rng, {m, n + 5}, c_type);
                MatmulArgs args{a.view(), b.view(), {}, ta, tb, accumulate, alpha};
                const auto result = [&](const Candidate<MatmulArgs>& candidate) {
                  Tensor c = ctx.empty(before.shape(), c_type);
                  copy(ctx, before, c);
                  args.c = c.narrowed(1, 1, n).view();
                  run(ctx, candidate, args);
                  return c;
                };
                args.c = before.narrowed(1, 1, n).view();
                const Tensor expected = result(matmul_cpu.candidates.back());
                for (const auto& candidate : matmul_cpu.candidates.first(matmul_cpu.candidates.size() - 1)) {
                  if (declines(ctx, candidate, args)) continue;
                  ++compared;
                  expect_close(ctx, result(candidate), expected, k,
                               fmt::format("{} {} {} -> {} [{}, {}, {}] transpose {} alpha {} accumulate {}",
                                           candidate.name, name_of(a_type), name_of(b_type), name_of(c_type), m, n, k,
                                           transpose, alpha, accumulate));
                  if (HasFatalFailure()) return;
                }
              }
  EXPECT_GT(compared, 0) << "no tuned candidate runs here";
}

TEST(Linear, A_rows_bits_depend_on_neither_batch_mates_nor_threads) {
  PhiloxStream rng(3, RngPurpose::kSynthetic);
  Context one = make_context(1), two = make_context(2);
  for (const char* format : {"bf16", "f32", "bf16_tile", "f32_panel", "f16"})
    for (const DType type : {DType::kBF16, DType::kF32})
      for (const bool transposed : {false, true}) {
        const quant::Weight weight = weight_of(format, random_tensor(rng, {67, 97}, DType::kBF16));
        const int64_t inner = transposed ? 67 : 97;
        const Tensor x = random_tensor(rng, {41, inner}, type);
        x.bytes()[3 * inner * size_of(type) + size_of(type) - 1] = std::byte{0x7f};  // row 3 begins with a NaN or more
        x.bytes()[3 * inner * size_of(type) + size_of(type) - 2] = std::byte{0xff};
        const auto product = [&](Context& ctx, int64_t begin, int64_t rows) {
          const Tensor part = x.narrowed(0, begin, rows);
          return values_of(ctx, transposed ? linear_transposed(ctx, part, weight) : linear(ctx, part, weight));
        };
        const std::vector<float> whole = product(two, 0, 41);
        const size_t out = whole.size() / 41;
        for (const int64_t rows : {1, 5, 16})
          for (int64_t begin = 0; begin + rows <= 41; begin += 6) {
            const std::vector<float> part = product(one, begin, rows);
            EXPECT_EQ(std::memcmp(part.data(), whole.data() + static_cast<size_t>(begin) * out, part.size() * 4), 0)
                << format << " " << name_of(type) << " rows " << begin << " + " << rows;
          }
        for (size_t i = 0; i < whole.size(); ++i)
          EXPECT_EQ(std::isfinite(whole[i]), i / out != 3) << format << " " << i;
      }
}

TEST(Packed_formats, Give_back_what_they_were_given) {
  PhiloxStream rng(4, RngPurpose::kSynthetic);
  ThreadPool threads(2);
  for (const auto [n, k] : {std::array<int64_t, 2>{1, 1}, {16, 32}, {17, 33}, {100, 129}})
    for (const char* format : {"bf16_tile", "f32_panel"}) {
      const Tensor values = random_tensor(rng, {n, k}, DType::kBF16);
      std::vector<float> expected(static_cast<size_t>(n * k)), got(expected.size());
      convert(values.bytes(), DType::kBF16, expected.data(), DType::kF32, n * k);
      const quant::Weight direct = weight_of(format, values);
      quant::Weight dense = quant::allocate(quant::format("bf16"), n, k);
      std::memcpy(dense.planes[0].bytes.data(), values.bytes(), static_cast<size_t>(values.size_bytes()));
      const quant::Weight repacked = quant::repack(dense, quant::format(format), threads);
      for (const quant::Weight* w : {&direct, &repacked}) {
        for (int64_t r = 0; r < n; r += 5) w->format->decode_rows(*w, r, std::min(n, r + 5), got.data() + r * k);
        EXPECT_EQ(got, expected) << format << " " << n << " " << k;
      }
    }
}

TEST(Preferred_format, Is_one_that_a_tuned_kernel_takes) {
  for (const char* name : {"bf16", "f32"}) {
    const quant::Format& preferred = preferred_format(kCpu, quant::format(name));
    EXPECT_EQ(&preferred_format(kCpu, preferred), &preferred);
  }
  EXPECT_EQ(preferred_format(kCpu, quant::format("f16")).name, "f16");
}

}  // namespace
}  // namespace pmetal::ops
