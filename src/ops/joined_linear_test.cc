// One product for weights that lie together: the values and gradients of a product for each.
#include "ops/joined_linear.h"

#include "ops/elementwise.h"
#include "ops/linear.h"
#include "ops/test_support.h"

namespace pmetal::ops {
namespace {

using namespace testing_support;

struct Weights {
  Tensor flat, gradient;
  std::vector<Tensor> leaves;
  Weights(Context& ctx, const Tensor& values, std::span<const int64_t> rows, int64_t gap = 0) {
    const int64_t in = values.dim(1);
    flat = ctx.empty({values.dim(0) + gap, in}, values.dtype());
    gradient = ctx.empty(flat.shape(), DType::kF32);
    fill(ctx, flat, 0);
    fill(ctx, gradient, 0.5);
    int64_t from = 0, to = 0;
    for (const int64_t n : rows) {
      const Tensor w = flat.narrowed(0, to, n);
      copy(ctx, values.narrowed(0, from, n), w);
      leaves.push_back(make_leaf(w, "w", gradient.narrowed(0, to, n)));
      from += n;
      to += n + gap;
    }
  }
};

TEST(JoinedLinear, Values_and_gradients_are_those_of_single_products) {
  Context ctx(std::make_shared<ThreadPool>(2));
  PhiloxStream rng(3, RngPurpose::kSynthetic);
  const int64_t rows[] = {24, 8, 16}, in = 40, m = 9;
  const Tensor values = random_tensor(rng, {48, in}), data = random_tensor(rng, {m, in});
  std::vector<Tensor> seeds;
  for (const int64_t n : rows) seeds.push_back(random_tensor(rng, {m, n}));
  const auto run = [&](bool together, Weights& w) {
    Tensor x = data.detached();
    const auto variable = std::make_shared<Variable>();
    x.set_variable(variable);
    Tape tape = make_tape();
    std::vector<Tensor> y;
    {
      TapeScope on(ctx, &tape);
      if (together)
        y = joined_linear(ctx, x, w.leaves);
      else
        for (const Tensor& leaf : w.leaves) y.push_back(linear_dense(ctx, x, leaf));
    }
    tape.backward(ctx, std::vector<std::pair<Tensor, Tensor>>{{y[0], seeds[0]}, {y[1], seeds[1]}, {y[2], seeds[2]}});
    std::vector<std::vector<double>> all;
    for (const Tensor& t : y) all.push_back(values_of(contiguous(ctx, t.detached())));
    all.push_back(values_of(variable->grad));
    all.push_back(values_of(w.gradient));
    return all;
  };
  Weights a(ctx, values, rows), b(ctx, values, rows);
  ASSERT_TRUE(joined_weights(a.leaves).defined());
  const auto want = run(false, a), got = run(true, b);
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_EQ(got[i].size(), want[i].size());
    for (size_t j = 0; j < want[i].size(); ++j) EXPECT_NEAR(got[i][j], want[i][j], 1e-5) << "output " << i;
  }
}

TEST(JoinedLinear, Weights_with_something_between_them_are_left_apart) {
  Context ctx(std::make_shared<ThreadPool>(1));
  PhiloxStream rng(3, RngPurpose::kSynthetic);
  const int64_t rows[] = {4, 4};
  const Tensor values = random_tensor(rng, {8, 16});
  Weights apart(ctx, values, rows, 1), close(ctx, values, rows);
  EXPECT_FALSE(joined_weights(apart.leaves).defined());
  EXPECT_TRUE(joined_weights(close.leaves).defined());
  EXPECT_FALSE(joined_weights(std::vector<Tensor>{close.leaves[1], close.leaves[0]}).defined());
  EXPECT_FALSE(joined_weights(std::vector<Tensor>{close.leaves[0]}).defined());
  // gradients elsewhere
  close.leaves[1] = make_leaf(close.leaves[1], "w", random_tensor(rng, {4, 16}));
  EXPECT_FALSE(joined_weights(close.leaves).defined());
  EXPECT_THROW(joined_linear(ctx, random_tensor(rng, {2, 16}), close.leaves), Error);
}

}  // namespace
}  // namespace pmetal::ops
