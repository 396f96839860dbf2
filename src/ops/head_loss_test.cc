#include "ops/head_loss.h"

#include "ops/linear.h"
#include "ops/test_support.h"

namespace pmetal::ops {
namespace {

using namespace testing_support;

quant::Weight frozen(std::string_view format, const Tensor& values) {
  quant::Weight w = quant::allocate(quant::format(format), values.dim(0), values.dim(1));
  const Tensor wide = converted(values, DType::kF32);
  w.format->encode_rows(w, 0, w.out, wide.data<float>());
  return w;
}

// logits [[2, 1, .1], [1, 1, 1]], labels [0, 2]: mean .7578211525, entropies .8467382, 1.098612, gradients of the mean
// (.1704994 ...). Computed with PyTorch's cross_entropy; the ignored row is left out by the caller.
TEST(Head_loss, Closed_form_of_three_logits) {
  Context ctx = make_context();
  const quant::Weight identity = frozen("f32", floats_of({1, 0, 0, 0, 1, 0, 0, 0, 1}, {3, 3}));
  const Tensor hidden = make_leaf(floats_of({2, 1, .1f, 1, 1, 1}, {2, 3}), "hidden");
  Tape tape = make_tape();
  ctx.set_tape(&tape);
  const HeadLoss out = head_loss(ctx, hidden, &identity, {}, ids_of({0, 2}), floats_of({.5f, .5f}, {2}));
  EXPECT_NEAR(item(ctx, out.loss), .7578211525, 1e-6);
  const std::vector<double> nll = values_of(out.nll), entropy = values_of(out.entropy);
  EXPECT_NEAR(nll[0] + nll[1], 1.5156423049, 2e-6);
  EXPECT_NEAR(entropy[0], .8467382, 1e-6);
  EXPECT_NEAR(entropy[1], 1.098612, 1e-6);
  EXPECT_EQ(out.correct.data<uint8_t>()[0], 1);
  EXPECT_EQ(out.correct.data<uint8_t>()[1], 0);  // the first of equal logits counts
  tape.backward(ctx, out.loss, floats_of({1}, {1}));
  const double expected[] = {-.1704994, .1212165, .04928295, .1666667, .1666667, -.3333333};
  const std::vector<double> gradient = values_of(hidden.variable()->grad);
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(gradient[i], expected[i], 1e-6) << i;
}

TEST(Head_loss, Equals_the_loss_made_of_primitive_ops_over_several_chunks) {
  Context ctx = make_context();
  PhiloxStream rng(2, RngPurpose::kSynthetic);
  const int64_t rows = 700, n = 24, vocabulary = 151;  // more rows than one chunk holds
  const Tensor h = random_tensor(rng, {rows, n}), w = random_tensor(rng, {vocabulary, n}, DType::kF32, 0.3);
  std::vector<int32_t> labels(rows);
  std::vector<float> scales(rows);
  for (size_t i = 0; i < labels.size(); ++i) {
    labels[i] = static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocabulary)));
    scales[i] = static_cast<float>(rng.uniform());
  }
  const Tensor ids = ids_of(labels), scale = floats_of(scales, {rows});
  HeadLossOptions options{0.7f, 4, 0.01f, 0.1f, true};
  Tape tape = make_tape();
  ctx.set_tape(&tape);
  const Tensor a = make_leaf(h, "h"), b = make_leaf(w, "w");
  const HeadLoss fused = head_loss(ctx, a, nullptr, b, ids, scale, options);
  tape.backward(ctx, fused.loss, floats_of({2}, {1}));

  const Tensor c = make_leaf(h, "h"), d = make_leaf(w, "w");
  Tensor x = affine(ctx, matmul(ctx, c, d, false, true), options.logit_scale / options.softcap);
  x = affine(ctx, unary(ctx, x, Unary::kTanh), options.softcap);
  const Tensor lse = logsumexp(ctx, x);
  const Tensor smooth = affine(ctx, sum_rows(ctx, x), options.label_smoothing / static_cast<float>(vocabulary));
  Tensor nll = sub(ctx, sub(ctx, lse, affine(ctx, gather_columns(ctx, x, ids), 1 - options.label_smoothing)), smooth);
  nll = add(ctx, nll, affine(ctx, mul(ctx, lse, lse), options.z_loss));
  const Tensor loss = sum(ctx, mul(ctx, nll, scale));
  tape.backward(ctx, loss, floats_of({2}, {1}));

  EXPECT_NEAR(item(ctx, fused.loss), item(ctx, loss), 1e-5 * item(ctx, loss));
  EXPECT_LT(relative_error(values_of(fused.nll), values_of(nll)), 1e-5);
  EXPECT_LT(relative_error(values_of(a.variable()->grad), values_of(c.variable()->grad)), 1e-5);
  EXPECT_LT(relative_error(values_of(b.variable()->grad), values_of(d.variable()->grad)), 1e-5);
}

TEST(Token_logprobs, And_chunks_give_the_same_as_head_loss) {
  Context ctx = make_context();
  PhiloxStream rng(6, RngPurpose::kSynthetic);
  const int64_t rows = 600;
  const Tensor h = random_tensor(rng, {rows, 16}), w = random_tensor(rng, {90, 16});
  std::vector<int32_t> labels(rows);
  for (int32_t& label : labels) label = static_cast<int32_t>(rng.below(90));
  const Tensor ids = ids_of(labels), scale = floats_of(std::vector<float>(rows, 0.25f), {rows});
  Tape tape = make_tape();
  ctx.set_tape(&tape);
  const Tensor a = make_leaf(h, "h"), b = make_leaf(h, "h"), c = make_leaf(h, "h");
  const HeadLoss loss = head_loss(ctx, a, nullptr, w, ids, scale);
  tape.backward(ctx, loss.loss, floats_of({1}, {1}));
  const TokenLogprobs each = token_logprobs(ctx, b, nullptr, w, ids);
  tape.backward(ctx, each.logprobs, floats_of(std::vector<float>(rows, -0.25f), {rows}));
  int calls = 0;
  const Tensor chunked = head_chunks(ctx, c, nullptr, w, {}, [&](Context& inner, const Tensor& logits, int64_t first) {
    ++calls;
    const Tensor own = ids.narrowed(0, first, logits.dim(0));
    return affine(inner, sum(inner, gather_columns(inner, log_softmax(inner, logits), own)), -0.25f);
  });
  tape.backward(ctx, chunked, floats_of({1}, {1}));
  EXPECT_GT(calls, 1);
  EXPECT_NEAR(item(ctx, chunked), item(ctx, loss.loss), 1e-5 * item(ctx, chunked));
  EXPECT_LT(relative_error(values_of(affine(ctx, each.logprobs, -1)), values_of(loss.nll)), 1e-6);
  EXPECT_TRUE(same_bits(a.variable()->grad, b.variable()->grad));
  EXPECT_LT(relative_error(values_of(c.variable()->grad), values_of(a.variable()->grad)), 1e-5);
}

TEST(Head_loss, Bf16_lies_within_a_hundredth_of_f32_for_every_format) {
  PhiloxStream rng(3, RngPurpose::kSynthetic);
  const Tensor h = random_tensor(rng, {37, 64}, DType::kBF16), w = random_tensor(rng, {203, 64}, DType::kBF16, 0.2);
  std::vector<int32_t> labels(37);
  for (int32_t& label : labels) label = static_cast<int32_t>(rng.below(203));
  const Tensor scale = floats_of(std::vector<float>(37, 1.f / 37), {37});
  const auto run = [&](DType dtype, const char* format) {
    Context ctx = make_context();
    Tape tape = make_tape();
    ctx.set_tape(&tape);
    const Tensor hidden = make_leaf(converted(h, dtype), "h");
    const quant::Weight head = frozen(format, w);
    const HeadLoss out = head_loss(ctx, hidden, &head, {}, ids_of(labels), scale);
    tape.backward(ctx, out.loss, floats_of({1}, {1}));
    std::vector<double> all = values_of(hidden.variable()->grad);
    return std::pair{static_cast<double>(item(ctx, out.loss)), all};
  };
  const auto exact = run(DType::kF32, "f32");
  for (const char* format : {"f32", "bf16", "bf16_tile", "f32_panel", "f16"}) {
    const auto narrow = run(DType::kBF16, format);
    EXPECT_NEAR(narrow.first, exact.first, 1e-3 * exact.first) << format;
    EXPECT_LT(relative_error(narrow.second, exact.second), 1e-2) << format;
  }
}

TEST(Head_loss, Takes_no_rows_and_keeps_a_NaN_in_its_row) {
  Context ctx = make_context();
  PhiloxStream rng(4, RngPurpose::kSynthetic);
  const quant::Weight head = frozen("f32", random_tensor(rng, {11, 8}));
  const HeadLoss none = head_loss(ctx, ctx.empty({0, 8}, DType::kF32), &head, {}, ids_of({}), floats_of({}, {0}));
  EXPECT_EQ(item(ctx, none.loss), 0);
  const Tensor h = random_tensor(rng, {3, 8});
  h.data<float>()[8] = NAN;
  const HeadLoss out = head_loss(ctx, h, &head, {}, ids_of({1, 2, 3}), floats_of({1, 1, 1}, {3}));
  const std::vector<double> nll = values_of(out.nll);
  EXPECT_TRUE(std::isfinite(nll[0]) && std::isnan(nll[1]) && std::isfinite(nll[2]));
}

}  // namespace
}  // namespace pmetal::ops
