#include "ops/rope.h"

#include "ops/test_support.h"

namespace pmetal::ops {
namespace {

using namespace testing_support;

TEST(Rope_table, Angles_are_f32_products_and_the_scale_comes_last) {
  Context ctx = make_context();
  const std::vector<float> frequencies = {1.f, 0.1f, 0.0003f};
  const RopeTable table = rope_table(ctx, ids_of({0, 1, 131071}), floats_of(frequencies, {3}), 1.5f);
  const int positions[] = {0, 1, 131071};
  for (int t = 0; t < 3; ++t)
    for (int i = 0; i < 3; ++i) {
      const float angle = static_cast<float>(positions[t]) * frequencies[static_cast<size_t>(i)];
      EXPECT_FLOAT_EQ(table.cos.data<float>()[t * 3 + i], std::cos(angle) * 1.5f);
      EXPECT_FLOAT_EQ(table.sin.data<float>()[t * 3 + i], std::sin(angle) * 1.5f);
    }
}

TEST(Rope, Turns_halves_or_pairs_and_leaves_the_rest) {
  Context ctx = make_context();
  const RopeTable table = rope_table(ctx, ids_of({1}), floats_of({1.f, 0.5f}, {2}), 1);
  const Tensor x = floats_of({1, 2, 3, 4, 5, 6}, {1, 1, 6});  // 4 of 6 features turn
  const double c[] = {std::cos(1.0), std::cos(0.5)}, s[] = {std::sin(1.0), std::sin(0.5)};
  const std::vector<double> half = values_of(rope(ctx, x, table)), pairs = values_of(rope(ctx, x, table, true));
  const double expected_half[] = {
      1 * c[0] - 3 * s[0], 2 * c[1] - 4 * s[1], 3 * c[0] + 1 * s[0], 4 * c[1] + 2 * s[1], 5, 6};
  const double expected_pairs[] = {
      1 * c[0] - 2 * s[0], 2 * c[0] + 1 * s[0], 3 * c[1] - 4 * s[1], 4 * c[1] + 3 * s[1], 5, 6};
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_NEAR(half[i], expected_half[i], 1e-6);
    EXPECT_NEAR(pairs[i], expected_pairs[i], 1e-6);
  }
}

TEST(Rope, Takes_strided_rows_and_no_rows) {
  Context ctx = make_context();
  PhiloxStream rng(1, RngPurpose::kSynthetic);
  const RopeTable table = rope_table(ctx, ids_of({3, 9, 4}), floats_of({1.f, 0.2f, 0.1f, 0.05f}, {4}), 1);
  const Tensor all = random_tensor(rng, {3, 5, 8}, DType::kBF16), part = all.narrowed(1, 2, 3);
  Tensor packed = ctx.empty({3, 3, 8}, DType::kBF16);
  copy(ctx, part, packed);
  EXPECT_TRUE(same_bits(rope(ctx, part, table), rope(ctx, packed, table)));
  const RopeTable none = rope_table(ctx, ids_of({}), floats_of({1.f}, {1}), 1);
  EXPECT_EQ(rope(ctx, all.narrowed(0, 0, 0), none).numel(), 0);
}

}  // namespace
}  // namespace pmetal::ops
