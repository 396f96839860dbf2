// linear_group on the CPU against the ops that it stands for: the same bits, for many rows and few, odd sizes, strided
// rows, biases, and values that are NaN or infinite.
#include "ops/linear_group.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/cpu/isa.h"
#include "base/rng.h"
#include "ops/activation.h"
#include "ops/elementwise.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/test_support.h"

namespace pmetal::ops {
namespace {

constexpr float kEps = 1e-6f;

Context make_context(int threads = 2) { return Context(std::make_shared<ThreadPool>(threads)); }

Tensor random_rows(Context& ctx, PhiloxStream& rng, int64_t rows, int64_t n, int64_t room = 0) {
  Tensor t = ctx.empty_rows(rows, n, DType::kBF16, room);
  std::vector<float> values(static_cast<size_t>(n));
  for (int64_t r = 0; r < rows; ++r) {
    for (float& v : values) v = static_cast<float>(rng.normal());
    convert(values.data(), DType::kF32, t.data<BF16>() + r * (n + room), DType::kBF16, n);
  }
  return t;
}

quant::Weight random_weight(std::string_view format, PhiloxStream& rng, int64_t out, int64_t in) {
  quant::Weight dense = quant::allocate(quant::format("f32"), out, in);
  auto* values = reinterpret_cast<float*>(dense.planes[0].bytes.data());
  for (int64_t i = 0; i < out * in; ++i)
    values[i] = static_cast<float>(rng.normal() / std::sqrt(static_cast<double>(in)));
  ThreadPool threads(2);
  return quant::repack(dense, quant::format(format), threads);
}

void expect_equal_bits(const Tensor& got, const Tensor& expected, const std::string& what) {
  ASSERT_EQ(got.shape().to_string(), expected.shape().to_string()) << what;
  const int64_t n = got.dim(1);
  for (int64_t r = 0; r < got.dim(0); ++r)
    ASSERT_EQ(0, std::memcmp(got.data<BF16>() + r * got.strides()[0], expected.data<BF16>() + r * expected.strides()[0],
                             static_cast<size_t>(n * 2)))
        << what << ", row " << r;
}

class LinearGroupOnCpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cpu::isa() < cpu::Isa::kAmx) GTEST_SKIP() << "no AMX here: the ops by themselves are what runs";
  }
};

struct Case {
  int64_t rows, in;
  std::array<int64_t, 3> out;
};
constexpr Case kCases[] = {{1, 64, {48, 16, 16}},     {7, 96, {33, 70, 5}},        {32, 1056, {256, 128, 128}},
                           {33, 64, {64, 32, 96}},    {130, 160, {47, 100, 33}},   {512, 1024, {512, 256, 256}},
                           {70, 2080, {320, 96, 64}}, {300, 2048, {1024, 64, 64}}, {64, 40, {96, 32, 32}}};

TEST_F(LinearGroupOnCpu, norm_and_products_have_the_bits_of_the_ops) {
  Context ctx = make_context();
  PhiloxStream rng(1, RngPurpose::kSynthetic);
  for (const Case& c : kCases)
    for (const char* format : {"bf16_tile", "bf16"})
      for (const bool with_norm : {true, false})
        for (const bool with_bias : {false, true}) {
          const Tensor x = random_rows(ctx, rng, c.rows, c.in, with_bias ? 32 : 0),
                       norm = random_rows(ctx, rng, 1, c.in).reshaped({c.in});
          std::vector<quant::Weight> weights;
          std::vector<WeightAndBias> parts;
          for (const int64_t out : c.out) weights.push_back(random_weight(format, rng, out, c.in));
          for (const quant::Weight& w : weights)
            parts.push_back({&w, with_bias ? random_rows(ctx, rng, 1, w.out).reshaped({w.out}) : Tensor()});
          const std::vector<Tensor> got = linear_group(ctx, x, {with_norm ? &norm : nullptr, kEps}, parts);
          ASSERT_EQ(got.size(), 3U);
          const Tensor h = with_norm ? rms_norm(ctx, x, norm, kEps) : x;
          for (size_t i = 0; i < parts.size(); ++i)
            expect_equal_bits(got[i], linear(ctx, h, *parts[i].weight, parts[i].bias),
                              fmt::format("{} rows of {}, {}, norm {}, bias {}, part {}", c.rows, c.in, format,
                                          with_norm, with_bias, i));
        }
}

TEST_F(LinearGroupOnCpu, gated_products_have_the_bits_of_the_ops) {
  Context ctx = make_context();
  PhiloxStream rng(2, RngPurpose::kSynthetic);
  for (const Case& c : kCases)
    for (const char* format : {"bf16_tile", "bf16"})
      for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh, Activation::kRelu2})
        for (const bool with_bias : {false, true}) {
          const int64_t out = c.out[0];
          Tensor x = random_rows(ctx, rng, c.rows, c.in);
          // far ends of the activation: sums of large inputs
          for (int64_t i = 0; i < c.in; ++i) x.data<BF16>()[i] = BF16{static_cast<uint16_t>(0x4300 + i % 64)};
          const Tensor norm = random_rows(ctx, rng, 1, c.in).reshaped({c.in});
          const quant::Weight gate = random_weight(format, rng, out, c.in), up = random_weight(format, rng, out, c.in);
          const Tensor b0 = with_bias ? random_rows(ctx, rng, 1, out).reshaped({out}) : Tensor();
          const Tensor b1 = with_bias ? random_rows(ctx, rng, 1, out).reshaped({out}) : Tensor();
          for (const bool with_norm : {true, false}) {
            const Tensor got =
                linear_glu(ctx, x, {with_norm ? &norm : nullptr, kEps}, {&gate, b0}, {&up, b1}, activation);
            ASSERT_TRUE(got.defined());
            const Tensor h = with_norm ? rms_norm(ctx, x, norm, kEps) : x;
            expect_equal_bits(got, glu(ctx, linear(ctx, h, gate, b0), linear(ctx, h, up, b1), activation),
                              fmt::format("{} rows of {} to {}, {}, activation {}, norm {}, bias {}", c.rows, c.in, out,
                                          format, static_cast<int>(activation), with_norm, with_bias));
          }
        }
}

TEST_F(LinearGroupOnCpu, a_residual_is_added_after_rounding) {
  Context ctx = make_context();
  PhiloxStream rng(3, RngPurpose::kSynthetic);
  for (const Case& c : kCases)
    for (const char* format : {"bf16_tile", "bf16"}) {
      const int64_t out = c.out[0];
      const Tensor x = random_rows(ctx, rng, c.rows, c.in, 32), residual = random_rows(ctx, rng, c.rows, out, 5);
      const quant::Weight w = random_weight(format, rng, out, c.in);
      const Tensor got = linear_add(ctx, x, {&w, {}}, residual);
      ASSERT_TRUE(got.defined());
      expect_equal_bits(got, add(ctx, linear(ctx, x, w, {}), residual),
                        fmt::format("{} rows of {} to {}, {}", c.rows, c.in, out, format));
    }
}

TEST_F(LinearGroupOnCpu, bits_of_a_row_depend_on_neither_company_nor_threads) {
  Context one = make_context(1), three = make_context(3);
  PhiloxStream rng(4, RngPurpose::kSynthetic);
  const int64_t rows = 200, in = 2080, out = 352;
  const Tensor x = random_rows(one, rng, rows, in), norm = random_rows(one, rng, 1, in).reshaped({in});
  const quant::Weight gate = random_weight("bf16_tile", rng, out, in), up = random_weight("bf16_tile", rng, out, in);
  const auto result = [&](Context& ctx, int64_t first, int64_t n) {
    return linear_glu(ctx, x.narrowed(0, first, n), {&norm, kEps}, {&gate, {}}, {&up, {}}, Activation::kSilu);
  };
  const Tensor all = result(three, 0, rows);
  expect_equal_bits(result(one, 0, rows), all, "threads");
  for (const auto [first, n] : {std::array<int64_t, 2>{0, 1}, {17, 5}, {3, 31}, {100, 33}, {1, 199}})
    expect_equal_bits(result(three, first, n), all.narrowed(0, first, n), fmt::format("{} rows from {}", n, first));
}

TEST_F(LinearGroupOnCpu, nan_and_infinity_stay_in_their_row) {
  Context ctx = make_context();
  PhiloxStream rng(5, RngPurpose::kSynthetic);
  const int64_t rows = 70, in = 96, out = 64;
  const Tensor x = random_rows(ctx, rng, rows, in);
  const quant::Weight gate = random_weight("bf16_tile", rng, out, in), up = random_weight("bf16_tile", rng, out, in);
  const Tensor clean = linear_glu(ctx, x, {}, {&gate, {}}, {&up, {}}, Activation::kSilu);
  x.data<BF16>()[5 * in + 7] = BF16{0x7fc0};
  x.data<BF16>()[40 * in] = BF16{0x7f80};
  const Tensor y = linear_glu(ctx, x, {}, {&gate, {}}, {&up, {}}, Activation::kSilu);
  for (int64_t r = 0; r < rows; ++r) {
    if (r == 5 || r == 40) {
      EXPECT_FALSE(std::isfinite(to_f32(y.data<BF16>()[r * y.strides()[0]]))) << r;
      continue;
    }
    expect_equal_bits(y.narrowed(0, r, 1), clean.narrowed(0, r, 1), fmt::format("row {}", r));
  }
}

}  // namespace
}  // namespace pmetal::ops
