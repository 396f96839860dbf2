// Linear with adapters by runs of sequences, batches, embedding.
#include "nn/linear.h"

#include <gtest/gtest.h>

#include <cstring>

namespace pmetal::nn {
namespace {

Context make_context() { return Context(std::make_shared<ThreadPool>(2)); }

Tensor counting(const Shape& shape) {
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 13) - 5;
  return host_tensor<float>(values, shape, DType::kF32);
}

quant::Weight frozen(int64_t out, int64_t in) {
  quant::Weight w = quant::allocate(quant::format("f32"), out, in);
  const Tensor values = counting({out, in});
  w.format->encode_rows(w, 0, out, values.data<float>());
  return w;
}

// adds a number, and notes which rows it was given
struct Plus : LinearAdapter {
  explicit Plus(float value) : value(value) {}
  Tensor apply(Context& ctx, const Batch&, int64_t first_row, const Linear& linear, const Tensor& x,
               const Tensor& base) override {
    EXPECT_EQ(x.dim(0), base.dim(0));
    EXPECT_EQ(x.dim(1), linear.in());
    seen.push_back({first_row, x.dim(0)});
    return ops::affine(ctx, base, 1, value);
  }
  float value;
  std::vector<std::pair<int64_t, int64_t>> seen;
};

Batch batch_of(Context& ctx, const std::vector<std::pair<int, int>>& lengths_and_adapters) {
  static const std::vector<int32_t> tokens(64, 1);
  std::vector<SequenceInput> sequences;
  for (const auto& [n, adapter] : lengths_and_adapters)
    sequences.push_back({std::span(tokens).first(static_cast<size_t>(n)), {}, 0, adapter});
  return make_batch(ctx, sequences);
}

std::vector<float> run(Context& ctx, const Linear& linear, const Batch& batch, const Tensor& x) {
  const Tensor y = linear.forward(ctx, batch, x);
  EXPECT_EQ(y.dim(1), linear.out());
  return {y.data<float>(), y.data<float>() + y.numel()};
}

TEST(Linear, Adapters_meet_the_rows_of_their_sequences_run_by_run) {
  Context ctx = make_context();
  Linear linear("layer.q_proj", 4, 3);
  linear.weight = frozen(3, 4);
  const auto first = std::make_shared<Plus>(100.f), second = std::make_shared<Plus>(1000.f);
  linear.adapters = {first, nullptr, second};
  const Tensor x = counting({10, 4});
  const Batch batch = batch_of(ctx, {{2, 0}, {1, 0}, {3, -1}, {0, 2}, {2, 2}, {2, 1}});
  const Tensor base = linear.forward_base(ctx, x);
  const std::vector<float> y = run(ctx, linear, batch, x);
  const float expected[] = {100, 100, 100, 0, 0, 0, 1000, 1000, 0, 0};
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], base.data<float>()[i] + expected[i / 3]) << i;
  EXPECT_EQ(first->seen, (std::vector<std::pair<int64_t, int64_t>>{{0, 3}}));
  EXPECT_EQ(second->seen, (std::vector<std::pair<int64_t, int64_t>>{{6, 2}}));
}

TEST(Linear, One_adapter_for_all_is_called_once_with_all_rows) {
  Context ctx = make_context();
  Linear linear("layer.q_proj", 4, 3);
  linear.weight = frozen(3, 4);
  const auto only = std::make_shared<Plus>(7.f);
  linear.adapters = {only};
  const Tensor x = counting({10, 4});
  run(ctx, linear, batch_of(ctx, {{4, -2}, {6, -2}}), x);  // the default: the first resident adapter
  run(ctx, linear, batch_of(ctx, {{4, 0}, {6, 0}}), x);
  run(ctx, linear, batch_of(ctx, {{4, -1}, {6, -1}}), x);  // base weights
  EXPECT_EQ(only->seen, (std::vector<std::pair<int64_t, int64_t>>{{0, 10}, {0, 10}}));
}

TEST(Linear, A_group_gives_what_each_gives) {
  Context ctx = make_context();
  Linear q("q", 4, 3), k("k", 4, 5);
  q.weight = frozen(3, 4);
  k.trainable = make_leaf(counting({5, 4}), "k.weight");
  k.bias = counting({5});
  const Batch batch = batch_of(ctx, {{6, -2}});
  const Tensor x = counting({6, 4});
  const Linear* const group[] = {&q, &k};
  const std::vector<Tensor> y = forward_group(ctx, batch, group, x);
  ASSERT_EQ(y.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    const Tensor alone = group[i]->forward(ctx, batch, x);
    EXPECT_EQ(std::memcmp(alone.bytes(), y[i].bytes(), static_cast<size_t>(alone.size_bytes())), 0);
  }
}

TEST(Batch, Lies_end_to_end) {
  Context ctx = make_context();
  const std::vector<int32_t> a = {5, 6, 7}, b = {8}, positions = {41};
  const SequenceInput sequences[] = {{a, {}, 100}, {{}, {}}, {b, positions, 0, 3}};
  const Batch batch = make_batch(ctx, sequences);
  EXPECT_EQ(batch.n_tokens(), 4);
  EXPECT_EQ(batch.n_sequences(), 3);
  EXPECT_EQ(batch.cu_q, (std::vector<int32_t>{0, 3, 3, 4}));
  EXPECT_EQ(batch.adapter, (std::vector<int32_t>{0, 0, 3}));
  const int32_t* at = batch.positions.data<int32_t>();
  EXPECT_EQ((std::vector<int32_t>{at, at + 4}), (std::vector<int32_t>{0, 1, 2, 41}));
  const int32_t* lengths = batch.rows.kv_len.data<int32_t>();
  EXPECT_EQ((std::vector<int32_t>{lengths, lengths + 3}), (std::vector<int32_t>{3, 0, 1}));
  EXPECT_EQ(batch.rope_length, (std::vector<int32_t>{100, 0, 42}));
  EXPECT_EQ(batch.rows.max_q, 3);
}

TEST(Attend, Without_memory_is_attention_within_each_sequence) {
  Context ctx = make_context();
  const Batch two = batch_of(ctx, {{3, -2}, {4, -2}}), alone = batch_of(ctx, {{4, -2}});
  const Tensor q = counting({7, 2, 4}), k = counting({7, 1, 4}), v = counting({7, 1, 4});
  const Tensor y = attend(ctx, 0, q, k, v, two, {});
  const Tensor second = attend(ctx, 0, q.narrowed(0, 3, 4), k.narrowed(0, 3, 4), v.narrowed(0, 3, 4), alone, {});
  EXPECT_EQ(std::memcmp(y.narrowed(0, 3, 4).bytes(), second.bytes(), static_cast<size_t>(second.size_bytes())), 0);
}

TEST(Embedding, Frozen_and_trainable_give_the_same_rows) {
  Context ctx = make_context();
  Embedding frozen_table("embed", 9, 4), trained("embed", 9, 4);
  frozen_table.weight = frozen(9, 4);
  trained.trainable = make_leaf(counting({9, 4}), "embed.weight");
  const std::vector<int32_t> ids = {8, 0, 3};
  Batch batch;
  batch.tokens = host_tensor<int32_t>(ids, {3}, DType::kI32);
  const Tensor a = frozen_table.forward(ctx, batch, DType::kF32, 3), b = trained.forward(ctx, batch, DType::kF32, 3);
  EXPECT_EQ(std::memcmp(a.bytes(), b.bytes(), static_cast<size_t>(a.size_bytes())), 0);
  EXPECT_EQ(a.data<float>()[4], 3 * counting({9, 4}).data<float>()[0]);
}

}  // namespace
}  // namespace pmetal::nn
