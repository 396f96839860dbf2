#include "ops/embedding.h"

#include "ops/kv.h"
#include "ops/linear.h"
#include "ops/test_support.h"

namespace pmetal::ops {
namespace {

using namespace testing_support;

TEST(Embedding, Rows_of_every_format_are_those_of_the_table) {
  Context ctx = make_context();
  PhiloxStream rng(1, RngPurpose::kSynthetic);
  const Tensor table = random_tensor(rng, {19, 33}, DType::kBF16), wide = converted(table, DType::kF32);
  const Tensor ids = ids_of({18, 0, 7, 7});
  const Tensor expected = embedding_dense(ctx, ids, table, DType::kBF16, 2);
  for (const char* name : {"bf16", "f32", "bf16_tile", "f32_panel"}) {
    quant::Weight w = quant::allocate(quant::format(name), 19, 33);
    w.format->encode_rows(w, 0, 19, wide.data<float>());
    EXPECT_TRUE(same_bits(embedding(ctx, ids, w, DType::kBF16, 2), expected)) << name;
  }
  const std::vector<double> values = values_of(expected), rows = values_of(table);
  for (size_t i = 0; i < 33; ++i) EXPECT_EQ(values[2 * 33 + i], 2 * rows[7 * 33 + i]);
  EXPECT_EQ(embedding_dense(ctx, ids_of({}), table, DType::kF32).numel(), 0);
}

TEST(Kv_append, Puts_rows_into_their_slots_and_skips_negative_ones) {
  Context ctx = make_context();
  PhiloxStream rng(2, RngPurpose::kSynthetic);
  const Tensor k = random_tensor(rng, {3, 2, 5}), v = random_tensor(rng, {3, 2, 4});
  const Tensor k_pages = ctx.empty({2, 2, 64, 5}, DType::kBF16), v_pages = ctx.empty({2, 2, 64, 4}, DType::kBF16);
  fill(ctx, k_pages, 0);
  fill(ctx, v_pages, 0);
  kv_append(ctx, k, v, k_pages, v_pages, tensor_of<int64_t>({64 + 3, -1, 63}, {3}, DType::kI64));
  const std::vector<double> got = values_of(k_pages), from = values_of(converted(k, DType::kBF16));
  double elsewhere = 0;
  for (const double x : got) elsewhere += std::abs(x);
  for (int64_t h = 0; h < 2; ++h)
    for (int64_t i = 0; i < 5; ++i) {
      const double first = got[static_cast<size_t>(((1 * 2 + h) * 64 + 3) * 5 + i)];
      const double last = got[static_cast<size_t>(((0 * 2 + h) * 64 + 63) * 5 + i)];
      EXPECT_EQ(first, from[static_cast<size_t>((0 * 2 + h) * 5 + i)]);
      EXPECT_EQ(last, from[static_cast<size_t>((2 * 2 + h) * 5 + i)]);
      elsewhere -= std::abs(first) + std::abs(last);
    }
  EXPECT_NEAR(elsewhere, 0, 1e-9);
}

TEST(Linear_dense, Bits_are_those_of_the_frozen_weight) {
  Context ctx = make_context();
  PhiloxStream rng(3, RngPurpose::kSynthetic);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Tensor w = random_tensor(rng, {21, 37}, dtype), x = random_tensor(rng, {6, 37}, dtype),
                 b = random_tensor(rng, {21}, dtype), wide = converted(w, DType::kF32);
    quant::Weight frozen = quant::allocate(quant::format(name_of(dtype)), 21, 37);
    frozen.format->encode_rows(frozen, 0, 21, wide.data<float>());
    EXPECT_TRUE(same_bits(linear_dense(ctx, x, w, b), linear(ctx, x, frozen, b))) << name_of(dtype);
  }
}

TEST(Linear_dense, Adds_its_gradient_into_the_leafs_buffer) {
  Context ctx = make_context();
  PhiloxStream rng(4, RngPurpose::kSynthetic);
  const Tensor grad = ctx.empty({3, 4}, DType::kF32);
  fill(ctx, grad, 10);
  const Tensor w = make_leaf(random_tensor(rng, {3, 4}, DType::kBF16), "w", grad);
  const Tensor x = random_tensor(rng, {5, 4}, DType::kBF16);
  const auto step = [&] {
    Tape tape = make_tape();
    TapeScope on(ctx, &tape);
    const Tensor y = linear_dense(ctx, x, w);
    Tensor ones = ctx.empty(y.shape(), y.dtype());
    fill(ctx, ones, 1);
    tape.backward(ctx, y, ones);
  };
  step();
  step();
  const std::vector<double> xs = values_of(x), got = values_of(grad);
  for (size_t i = 0; i < 4; ++i) {
    double sum = 0;
    for (size_t r = 0; r < 5; ++r) sum += xs[r * 4 + i];
    for (size_t o = 0; o < 3; ++o) EXPECT_NEAR(got[o * 4 + i], 10 + 2 * sum, 1e-4);
  }
}

TEST(Matmul, Says_which_sizes_differ) {
  Context ctx = make_context();
  try {
    matmul(ctx, ctx.empty({8, 512}, DType::kF32), ctx.empty({500, 64}, DType::kF32));
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "[matmul] inner sizes differ: a is [8, 512], b is [500, 64]");
  }
}

}  // namespace
}  // namespace pmetal::ops
