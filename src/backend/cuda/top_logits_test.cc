// The largest logits of rows against sorting, with ties, holes and rows that cannot be drawn from.
#include "ops/top_logits.h"

#include <algorithm>

#include "backend/cuda/cuda_testing.h"

namespace pmetal::ops {
namespace {

using namespace cuda_testing;

class CudaTopLogits : public Cuda {};

TEST_F(CudaTopLogits, Holds_everything_above_its_limit) {
  for (const auto& [rows, n] : {std::pair<int64_t, int64_t>{1, 151936}, {3, 1000}, {40, 4099}, {300, 777}, {2, 5}})
    for (const int64_t want : {int64_t{1}, int64_t{64}, int64_t{256}})
      for (const double grain : {0.0, 4.0}) {
        SCOPED_TRACE(fmt::format("{} rows of {}, {} wanted, grain {}", rows, n, want, grain));
        Tensor z = random_tensor(rng, {rows, n}, DType::kF32, 4);
        float* values = z.data<float>();
        for (int64_t i = 0; i < z.numel(); ++i) {
          if (grain > 0) values[i] = static_cast<float>(std::round(values[i] * grain) / grain);
          if (i % 7 == 3) values[i] = -INFINITY;
        }
        const std::vector<TopLogits> all = top_logits(*gpu, to_device(*gpu, z), rows, want);
        if (!gpu->device().is_cuda()) {
          EXPECT_TRUE(all.empty());
          continue;
        }
        ASSERT_EQ(all.size(), static_cast<size_t>(rows));
        for (int64_t r = 0; r < rows; ++r) {
          const TopLogits& top = all[static_cast<size_t>(r)];
          const float* row = values + r * n;
          if (!top.is_whole) {  // only where the last bin overflows
            EXPECT_TRUE(grain > 0 || n > 100'000);
            continue;
          }
          const auto finite = std::count_if(row, row + n, [](float v) { return std::isfinite(v); });
          EXPECT_GE(static_cast<int64_t>(top.pairs.size()), std::min<int64_t>(want, finite));
          std::vector<bool> listed(static_cast<size_t>(n));
          for (const auto& [id, logit] : top.pairs) {
            EXPECT_FALSE(listed[static_cast<size_t>(id)]) << "id " << id << " twice";
            listed[static_cast<size_t>(id)] = true;
            EXPECT_EQ(logit, row[id]);
          }
          for (int64_t i = 0; i < n; ++i)
            if (!listed[static_cast<size_t>(i)]) EXPECT_LE(row[i], top.rest_below) << "row " << r << " id " << i;
        }
      }
}

TEST_F(CudaTopLogits, Rows_that_cannot_be_drawn_from_are_not_whole) {
  Tensor z = random_tensor(rng, {4, 2000});
  float* values = z.data<float>();
  values[1234] = NAN;
  values[2000 + 17] = INFINITY;
  std::fill_n(values + 2 * 2000, 2000, -INFINITY);
  const std::vector<TopLogits> all = top_logits(*gpu, to_device(*gpu, z), 4, 8);
  if (!gpu->device().is_cuda()) return;
  ASSERT_EQ(all.size(), 4U);
  for (size_t r = 0; r < 3; ++r) EXPECT_FALSE(all[r].is_whole) << "row " << r;
  EXPECT_TRUE(all[3].is_whole);
}

}  // namespace
}  // namespace pmetal::ops
