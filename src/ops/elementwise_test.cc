#include "ops/elementwise.h"

#include "ops/activation.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/test_support.h"

namespace pmetal::ops {
namespace {

using namespace testing_support;

TEST(Elementwise, Arithmetic_on_strided_tensors) {
  Context ctx = make_context();
  PhiloxStream rng(1, RngPurpose::kSynthetic);
  const Tensor a = random_tensor(rng, {7, 3, 50}).narrowed(2, 5, 41),
               b = random_tensor(rng, {7, 4, 41}).narrowed(1, 1, 3);
  const std::vector<double> x = values_of(a), y = values_of(b), product = values_of(mul(ctx, a, b)),
                            smaller = values_of(minimum(ctx, a, b)), ratio = values_of(div(ctx, a, b));
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_FLOAT_EQ(static_cast<float>(product[i]), static_cast<float>(x[i] * y[i]));
    EXPECT_EQ(smaller[i], std::min(x[i], y[i]));
    EXPECT_FLOAT_EQ(static_cast<float>(ratio[i]), static_cast<float>(x[i] / y[i]));
  }
  EXPECT_EQ(add(ctx, ctx.empty({0, 4}, DType::kF32), ctx.empty({0, 4}, DType::kF32)).numel(), 0);
}

TEST(Elementwise, Shapes_that_differ_are_named) {
  Context ctx = make_context();
  try {
    add(ctx, ctx.empty({2, 3}, DType::kF32), ctx.empty({3, 2}, DType::kF32));
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "[add] shapes differ: a is [2, 3], b is [3, 2]");
  }
}

TEST(Elementwise, Minimum_and_maximum_pass_NaN_on) {
  Context ctx = make_context();
  const Tensor a = floats_of({NAN, 1, 2}, {3}), b = floats_of({1, NAN, 3}, {3});
  for (const Tensor& y : {minimum(ctx, a, b), maximum(ctx, a, b)}) {
    EXPECT_TRUE(std::isnan(values_of(y)[0]) && std::isnan(values_of(y)[1]));
    EXPECT_FALSE(std::isnan(values_of(y)[2]));
  }
}

TEST(Softmax, Extremes_and_masked_rows) {
  Context ctx = make_context();
  const float inf = INFINITY;
  const Tensor x = floats_of({1000, 1000, -inf, -inf, -inf, -inf, NAN, 0, 1}, {3, 3});
  const std::vector<double> p = values_of(softmax(ctx, x)), l = values_of(log_softmax(ctx, x)),
                            s = values_of(logsumexp(ctx, x));
  EXPECT_NEAR(p[0], 0.5, 1e-7);
  EXPECT_EQ(p[2], 0);
  EXPECT_NEAR(l[0], -std::log(2.0), 1e-6);
  EXPECT_NEAR(s[0], 1000 + std::log(2.0), 1e-3);
  for (size_t i = 3; i < 6; ++i) EXPECT_EQ(p[i], 0);
  EXPECT_EQ(s[1], -inf);
  for (size_t i = 6; i < 9; ++i) EXPECT_TRUE(std::isnan(p[i]));
}

TEST(Softmax, Long_rows_equal_f64) {
  Context ctx = make_context();
  PhiloxStream rng(2, RngPurpose::kSynthetic);
  const Tensor x = random_tensor(rng, {3, 5003}, DType::kF32, 10);
  EXPECT_LT(relative_error(values_of(softmax(ctx, x)), values_of(softmax(ctx, converted(x, DType::kF64)))), 1e-6);
  EXPECT_LT(relative_error(values_of(log_softmax(ctx, x)), values_of(log_softmax(ctx, converted(x, DType::kF64)))),
            1e-6);
}

TEST(Sum, Is_the_same_for_any_threads_and_zero_for_nothing) {
  Context one = make_context(1), three = make_context(3);
  PhiloxStream rng(3, RngPurpose::kSynthetic);
  const Tensor x = random_tensor(rng, {301, 997});
  EXPECT_TRUE(same_bits(sum(one, x), sum(three, x)));
  double exact = 0;
  for (const double v : values_of(x)) exact += v;
  EXPECT_NEAR(item(one, sum(one, x)), exact, 0.05);
  EXPECT_EQ(item(one, sum(one, one.empty({0, 3}, DType::kF32))), 0);
}

TEST(Cast, Rounds_to_nearest_even_between_all_types) {
  Context ctx = make_context();
  const Tensor x = floats_of({1.00390625f, 1.01171875f, 65520.f, NAN, -0.f}, {5});
  const std::vector<double> bf16 = values_of(cast(ctx, x, DType::kBF16)), f16 = values_of(cast(ctx, x, DType::kF16));
  EXPECT_EQ(bf16[0], 1.0);       // half way: to even
  EXPECT_EQ(bf16[1], 1.015625);  // half way: to even
  EXPECT_EQ(f16[2], INFINITY);
  EXPECT_TRUE(std::isnan(bf16[3]) && std::isnan(f16[3]));
  EXPECT_TRUE(std::signbit(bf16[4]));
}

TEST(Index, Gather_scatter_and_columns) {
  Context ctx = make_context();
  const Tensor x = floats_of({0, 1, 10, 11, 20, 21}, {3, 2});
  EXPECT_EQ(values_of(gather_rows(ctx, x, ids_of({2, 0, 2}))), (std::vector<double>{20, 21, 0, 1, 20, 21}));
  EXPECT_EQ(values_of(scatter_rows(ctx, x, ids_of({3, 0, 1}), 4)), (std::vector<double>{10, 11, 20, 21, 0, 0, 0, 1}));
  EXPECT_EQ(values_of(gather_columns(ctx, x, ids_of({1, 0, 1}))), (std::vector<double>{1, 10, 21}));
  EXPECT_EQ(gather_rows(ctx, x, ids_of({})).numel(), 0);
  const Tensor parts[] = {x.narrowed(1, 1, 1), x};
  EXPECT_EQ(values_of(concat_columns(ctx, parts)), (std::vector<double>{1, 0, 1, 11, 10, 11, 21, 20, 21}));
}

TEST(Dropout, Depends_on_identity_alone) {
  Context one = make_context(1), three = make_context(3);
  PhiloxStream rng(4, RngPurpose::kSynthetic);
  const Tensor x = random_tensor(rng, {50, 203});
  std::vector<int64_t> ids(50);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int64_t>(i * 977);
  const Tensor row_ids = tensor_of(ids, {50}, DType::kI64);
  const DropoutKey key{42, 3, 9};
  const Tensor y = dropout(three, x, 0.25f, key, row_ids);
  for (const int64_t begin : {0, 13, 49}) {
    const int64_t rows = std::min<int64_t>(7, 50 - begin);
    EXPECT_TRUE(same_bits(dropout(one, x.narrowed(0, begin, rows), 0.25f, key, row_ids.narrowed(0, begin, rows)),
                          y.narrowed(0, begin, rows)));
  }
  const std::vector<double> from = values_of(x), to = values_of(y);
  size_t dropped = 0;
  for (size_t i = 0; i < to.size(); ++i) {
    dropped += to[i] == 0;
    if (to[i] != 0) {
      EXPECT_FLOAT_EQ(static_cast<float>(to[i]), static_cast<float>(from[i] / 0.75));
    }
  }
  // binomial: 10150 draws of p = 1/4, standard deviation 43.6
  EXPECT_NEAR(static_cast<double>(dropped), 10150 * 0.25, 5 * 43.6);
  for (const DropoutKey& other : {DropoutKey{43, 3, 9}, DropoutKey{42, 4, 9}, DropoutKey{42, 3, 10}})
    EXPECT_FALSE(same_bits(dropout(one, x, 0.25f, other, row_ids), y));
  EXPECT_TRUE(same_bits(dropout(one, x, 0, key, row_ids), x));
}

// A block as in a decoder: norm, gated MLP with trainable weights, dropout, residual; three of them.
struct Gradients {
  std::vector<Tensor> leaves;
  Tensor input;
};

Gradients three_blocks(bool checkpointed, DType dtype, int64_t* peak) {
  Context ctx = make_context();
  PhiloxStream rng(5, RngPurpose::kSynthetic);
  Tape tape = make_tape();
  TapeScope on(ctx, &tape);
  std::vector<Tensor> leaves;
  const auto leaf = [&](const Shape& shape) {
    Tensor gradient = ctx.empty(shape, DType::kF32);
    fill(ctx, gradient, 0);
    leaves.push_back(make_leaf(random_tensor(rng, shape, dtype, 0.3), "w", gradient));
    return leaves.back();
  };
  std::vector<int64_t> ids(16);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int64_t>(i);
  const Tensor row_ids = tensor_of(ids, {16}, DType::kI64);
  const Tensor input = make_leaf(random_tensor(rng, {16, 32}, dtype), "x");
  Tensor x = affine(ctx, input, 2);  // as in a model, no block reads a leaf
  for (uint32_t i = 0; i < 3; ++i) {
    const Tensor norm = leaf({32}), gate = leaf({48, 32}), up = leaf({48, 32}), down = leaf({32, 48});
    const auto block = [=](Context& c, const Tensor& in) {
      const Tensor h = rms_norm(c, in, norm, 1e-6f);
      const Tensor y =
          linear_dense(c, glu(c, linear_dense(c, h, gate), linear_dense(c, h, up), Activation::kSilu), down);
      return add(c, in, dropout(c, y, 0.1f, {1, i, 0}, row_ids));
    };
    x = checkpointed ? checkpoint(ctx, x, block) : block(ctx, x);
  }
  const Tensor seed = random_tensor(rng, x.shape(), dtype);
  if (peak) *peak = ctx.allocator().stats().current_bytes;
  tape.backward(ctx, x, seed);
  Gradients out;
  for (const Tensor& t : leaves) out.leaves.push_back(t.variable()->grad);
  out.input = input.variable()->grad;
  return out;
}

TEST(Checkpoint, Gradients_are_bit_equal_and_less_is_kept) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    int64_t kept = 0, kept_checkpointed = 0;
    const Gradients plain = three_blocks(false, dtype, &kept), again = three_blocks(true, dtype, &kept_checkpointed);
    ASSERT_EQ(plain.leaves.size(), 12u);
    for (size_t i = 0; i < plain.leaves.size(); ++i) EXPECT_TRUE(same_bits(plain.leaves[i], again.leaves[i])) << i;
    EXPECT_TRUE(same_bits(plain.input, again.input));
    EXPECT_LT(kept_checkpointed, kept);
  }
}

TEST(Checkpoint, Trains_leaves_behind_an_input_without_gradient) {
  Context ctx = make_context();
  PhiloxStream rng(6, RngPurpose::kSynthetic);
  Tape tape = make_tape();
  TapeScope on(ctx, &tape);
  const Tensor w = make_leaf(random_tensor(rng, {3, 4}), "w"), x = random_tensor(rng, {5, 4});
  const Tensor y = checkpoint(ctx, x, [&](Context& c, const Tensor& in) { return linear_dense(c, in, w); });
  tape.backward(ctx, y, random_tensor(rng, {5, 3}));
  EXPECT_TRUE(w.variable()->grad.defined());
}

TEST(Tape, Does_not_keep_what_can_be_computed_again) {
  PhiloxStream rng(7, RngPurpose::kSynthetic);
  const auto kept = [&](bool norm) {
    Context ctx = make_context();
    Tape tape = make_tape();
    TapeScope on(ctx, &tape);
    const Tensor x = make_leaf(random_tensor(rng, {64, 256}), "x"), w = make_leaf(random_tensor(rng, {256, 256}), "w");
    const Tensor ones = make_leaf(random_tensor(rng, {256}), "n");
    const int64_t before = ctx.allocator().stats().current_bytes;
    { const Tensor y = linear_dense(ctx, norm ? rms_norm(ctx, x, ones, 1e-6f) : x, w); }
    return ctx.allocator().stats().current_bytes - before;
  };
  EXPECT_EQ(kept(true), kept(false));
}

TEST(Meta, Ops_run_without_storage) {
  Context ctx(std::make_shared<ThreadPool>(1), make_meta_allocator());
  const Tensor x = ctx.empty({1 << 20, 4096}, DType::kBF16), w = ctx.empty({4096, 4096}, DType::kBF16);
  EXPECT_EQ(linear_dense(ctx, x, w).shape().to_string(), "[1048576, 4096]");
  EXPECT_TRUE(rms_norm(ctx, x, ctx.empty({4096}, DType::kBF16), 1e-6f).device().is_meta());
}

}  // namespace
}  // namespace pmetal::ops
