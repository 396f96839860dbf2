#include "ops/norm.h"

#include "ops/test_support.h"

namespace pmetal::ops {
namespace {

using namespace testing_support;

TEST(Rms_norm, Closed_form) {
  Context ctx = make_context();
  // x = (3, 4): mean of squares 12.5
  const Tensor y = rms_norm(ctx, floats_of({3, 4}, {1, 2}), floats_of({2, .5f}, {2}), 0, 1);
  EXPECT_NEAR(values_of(y)[0], 3 / std::sqrt(12.5) * 3, 1e-6);
  EXPECT_NEAR(values_of(y)[1], 4 / std::sqrt(12.5) * 1.5, 1e-6);
}

TEST(Rms_norm, Odd_sizes_of_all_types_lie_near_f64) {
  Context ctx = make_context();
  PhiloxStream rng(1, RngPurpose::kSynthetic);
  for (const auto& [rows, n] : {std::pair<int64_t, int64_t>{0, 8}, {1, 1}, {3, 17}, {5, 1025}, {2, 4100}})
    for (const auto& [dtype, tolerance] : {std::pair{DType::kF32, 1e-6}, {DType::kBF16, 1e-2}, {DType::kF16, 2e-3}}) {
      const Tensor x = random_tensor(rng, {rows, n}, dtype), w = random_tensor(rng, {n}, dtype);
      const Tensor y = rms_norm(ctx, x, w, 1e-5f);
      const std::vector<double> exact =
          values_of(rms_norm(ctx, converted(x, DType::kF64), converted(w, DType::kF64), 1e-5f));
      if (rows > 0) {
        EXPECT_LT(relative_error(values_of(y), exact), tolerance) << n << name_of(dtype);
      }
    }
}

TEST(Rms_norm, Rounds_before_the_weight_as_the_reference_does) {
  Context ctx = make_context();
  PhiloxStream rng(2, RngPurpose::kSynthetic);
  const Tensor x = random_tensor(rng, {3, 64}, DType::kBF16), w = random_tensor(rng, {64}, DType::kBF16);
  Tensor ones = ctx.empty({64}, DType::kBF16);
  fill(ctx, ones, 1);
  const std::vector<double> normed = values_of(rms_norm(ctx, x, ones, 1e-6f)), weight = values_of(w);
  const std::vector<double> y = values_of(rms_norm(ctx, x, w, 1e-6f));
  for (size_t i = 0; i < y.size(); ++i)
    EXPECT_EQ(y[i], static_cast<double>(to_f32(to_bf16(static_cast<float>(normed[i] * weight[i % 64])))));
}

TEST(Add_rms_norm, Is_the_sum_and_then_the_norm) {
  Context ctx = make_context(3), one = make_context(1);
  PhiloxStream rng(3, RngPurpose::kSynthetic);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor x = random_tensor(rng, {9, 131}, dtype), r = random_tensor(rng, {9, 131}, dtype),
                 w = random_tensor(rng, {131}, dtype);
    const SumAndNorm fused = add_rms_norm(ctx, x, r, w, 1e-6f);
    const Tensor sum = add(one, x, r);
    EXPECT_TRUE(same_bits(fused.sum, sum));
    EXPECT_TRUE(same_bits(fused.normed, rms_norm(one, sum, w, 1e-6f)));
  }
}

TEST(Rms_norm, A_NaN_stays_in_its_row) {
  Context ctx = make_context();
  PhiloxStream rng(4, RngPurpose::kSynthetic);
  const Tensor x = random_tensor(rng, {3, 40});
  x.data<float>()[45] = NAN;
  const std::vector<double> y = values_of(rms_norm(ctx, x, random_tensor(rng, {40}), 1e-6f));
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i / 40 == 1);
}

TEST(Rms_norm, Says_what_does_not_fit) {
  Context ctx = make_context();
  try {
    rms_norm(ctx, ctx.empty({8, 512}, DType::kF32), ctx.empty({500}, DType::kF32), 1e-6f);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "[rms_norm] the weight [500] does not fit the rows of x [8, 512]");
  }
}

}  // namespace
}  // namespace pmetal::ops
