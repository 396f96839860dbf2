#include "ops/optim.h"

#include "ops/test_support.h"

namespace pmetal::ops {
namespace {

using namespace testing_support;

// w = 1, lr .1, decay .01, gradients .1, -.2, .3: PyTorch's AdamW
TEST(Adamw, Three_steps_of_one_weight) {
  Context ctx = make_context();
  const Tensor w = floats_of({1}, {1}), m = floats_of({0}, {1}), v = floats_of({0}, {1});
  const Tensor weight = ctx.empty({1}, DType::kBF16);
  const float gradients[] = {.1f, -.2f, .3f};
  const double expected[] = {0.89900001, 0.9347113604, 0.8994525426};
  for (int i = 0; i < 3; ++i) {
    AdamWArgs hyper;
    hyper.lr = .1f;
    hyper.weight_decay = .01f;
    hyper.step = i + 1;
    hyper.grad_scale = .5f;  // the clipping factor multiplies the gradient
    adamw(ctx, w, floats_of({gradients[i] * 2}, {1}), m, v, weight, hyper);
    EXPECT_NEAR(w.data<float>()[0], expected[i], 2e-7);
    EXPECT_EQ(weight.data<BF16>()[0].bits, to_bf16(w.data<float>()[0]).bits);
  }
}

TEST(Adamw, Bits_do_not_depend_on_threads) {
  PhiloxStream rng(1, RngPurpose::kSynthetic);
  const Tensor w = random_tensor(rng, {5001}), g = random_tensor(rng, {5001});
  const auto run = [&](int threads) {
    Context ctx = make_context(threads);
    const Tensor own = converted(w, DType::kF32), m = converted(g, DType::kF32), v = ctx.empty({5001}, DType::kF32);
    fill(ctx, v, 0.01);
    AdamWArgs hyper;
    hyper.lr = 1e-3f;
    hyper.step = 7;
    adamw(ctx, own, g, m, v, {}, hyper);
    return own;
  };
  EXPECT_TRUE(same_bits(run(1), run(3)));
}

TEST(Sum_squares, Is_exact_for_integers_and_the_same_for_any_threads) {
  PhiloxStream rng(2, RngPurpose::kSynthetic);
  Context one = make_context(1), three = make_context(3);
  std::vector<float> values(10007);
  double expected = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(i % 100);
    expected += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  }
  EXPECT_EQ(sum_squares(one, floats_of(values, {10007})), expected);
  const Tensor x = random_tensor(rng, {3, 70001});
  EXPECT_EQ(sum_squares(one, x), sum_squares(three, x));
  EXPECT_EQ(sum_squares(one, one.empty({0}, DType::kF32)), 0);
}

}  // namespace
}  // namespace pmetal::ops
