// Tokens drawn on a device (ops/draw.h) are those of the sampler, or none. Runs where PMETAL_TEST_DEVICE says; the CPU
// has no such kernel.
#include "ops/draw.h"

#include <gtest/gtest.h>

#include <cmath>

#include "infer/reference_testing.h"
#include "infer/sampler.h"
#include "ops/elementwise.h"

namespace pmetal::infer {
namespace {

class DrawParity : public testing::Test {
 protected:
  void SetUp() override {
    if (!ctx.device().is_cuda()) GTEST_SKIP() << "the CPU draws from the row itself";
  }
  // logits with ties: multiples of 1/8 here and there; and some tokens ruled out
  std::vector<float> random_row(int64_t n, double spread) {
    std::vector<float> z(static_cast<size_t>(n));
    for (size_t i = 0; i < z.size(); ++i) {
      z[i] = static_cast<float>(spread * random.normal());
      if (i % 3 == 0) z[i] = std::round(z[i] * 8) / 8;
      if (i % 17 == 5) z[i] = -INFINITY;
    }
    return z;
  }
  Context ctx = reference::test_context();
  PhiloxStream random{11, RngPurpose::kSynthetic};
};

TEST_F(DrawParity, Tokens_are_those_of_the_sampler) {
  int64_t drawn = 0, undecided = 0;
  for (const int64_t n : {7, 1000, 5003, 151936})
    for (const double spread : {0.3, 2.5, 8.0})
      for (int round = 0; round < 4; ++round) {
        const int64_t rows = n > 100000 ? 6 : 24;
        std::vector<float> all;
        std::vector<ops::DrawRow> wanted;
        std::vector<int32_t> want;
        for (int64_t r = 0; r < rows; ++r) {
          std::vector<float> z = random_row(n, spread);
          all.insert(all.end(), z.begin(), z.end());
          SamplingParams p;
          p.temperature = std::array{1.f, 0.7f, 1.3f, 0.05f}[static_cast<size_t>(r % 4)];
          p.top_p =
              round == 1 || round == 3 ? std::array{0.9f, 0.5f, 0.99f, 1e-4f, 1.f}[static_cast<size_t>(r % 5)] : 1;
          p.min_p = round == 2 || round == 3 ? std::array{0.05f, 0.3f, 0.001f}[static_cast<size_t>(r % 3)] : 0;
          p.seed = random.next_u32() | uint64_t{random.next_u32()} << 32;
          const int64_t valid = r % 6 == 4 ? n - n / 7 : n, position = r * 5;
          const auto stream = static_cast<uint32_t>(r % 2);
          Sampler sampler(p, std::vector<int32_t>{1, 2}, {.stream = stream, .vocabulary = valid});
          for (int64_t i = 0; i < position; ++i) sampler.accept(3);
          const std::optional<ops::DrawRow> row = sampler.device_draw(n);
          ASSERT_TRUE(row);
          wanted.push_back(*row);
          want.push_back(sampler.sample(z).id);
          wanted.back().row = static_cast<int32_t>(rows - 1 - r);
        }
        const Tensor host(allocate_host(rows * n * 4), {rows, n}, DType::kF32);
        for (int64_t r = 0; r < rows; ++r) std::copy_n(all.begin() + r * n, n, host.data<float>() + (rows - 1 - r) * n);
        const std::vector<int32_t> got = ops::draw(ctx, ops::to_device(ctx, host), wanted);
        ASSERT_EQ(got.size(), want.size());
        for (size_t r = 0; r < want.size(); ++r) {
          ++drawn;
          if (got[r] < 0)
            ++undecided;
          else
            EXPECT_EQ(got[r], want[r]) << n << " ids, spread " << spread << ", round " << round << ", row " << r;
        }
      }
  EXPECT_LE(undecided * 50, drawn) << undecided << " of " << drawn << " rows were left to the host";
}

TEST_F(DrawParity, Rows_without_a_token_are_left_to_the_host) {
  const float inf = INFINITY;
  const Tensor host = host_tensor<float>(std::vector<float>{NAN, 1, 2, inf, 1, 2, -inf, -inf, -inf, -inf, 4, -inf},
                                         Shape{4, 3}, DType::kF32);
  std::vector<ops::DrawRow> rows(8);
  for (int i = 0; i < 8; ++i) {
    rows[static_cast<size_t>(i)] = *Sampler({}, {}).device_draw(3);
    rows[static_cast<size_t>(i)].row = i % 4;
    if (i >= 4) rows[static_cast<size_t>(i)].top_p = 0.5;
  }
  EXPECT_EQ(ops::draw(ctx, ops::to_device(ctx, host), rows), (std::vector<int32_t>{-1, -1, -1, 1, -1, -1, -1, 1}));
}

}  // namespace
}  // namespace pmetal::infer
