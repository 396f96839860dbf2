// linear_lora against linear followed by lora: values and all gradients, with and without dropout's second input.
#include "ops/lora.h"

#include <gtest/gtest.h>

#include "ops/test_support.h"

namespace pmetal::ops {
namespace {

using namespace testing_support;

TEST(Linear_lora, Equals_linear_and_lora) {
  Context ctx = make_context(2);
  PhiloxStream rng(3, RngPurpose::kInit);
  for (const int64_t rows : {3, 40, 130})
    for (const bool drops : {false, true}) {
      const int64_t in = 96, out = 80, rank = 16;
      const DType t = DType::kBF16;
      const Tensor values = random_tensor(rng, {out, in}, t), dy = random_tensor(rng, {rows, out}, t);
      const Tensor x0 = random_tensor(rng, {rows, in}, t), other = random_tensor(rng, {rows, in}, t);
      const Tensor a0 = random_tensor(rng, {rank, in}, t), b0 = random_tensor(rng, {out, rank}, t);
      quant::Weight dense{&quant::format("bf16"), out, in, {{values.buffer(), t}}, 0};
      const quant::Weight weight = quant::repack(dense, preferred_format(kCpu, *dense.format), ctx.threads());
      std::vector<std::vector<double>> results[2];
      for (const bool fused : {false, true}) {
        const Tensor x = make_leaf(x0.detached(), "x"), low = drops ? make_leaf(other.detached(), "low") : x;
        const Tensor a = make_leaf(a0.detached(), "a"), b = make_leaf(b0.detached(), "b");
        Tape tape = make_tape();
        Tensor y;
        {
          TapeScope recording(ctx, &tape);
          if (fused)
            y = linear_lora(ctx, x, weight, {}, low, a, b, 0.5f);
          else
            y = lora(ctx, low, linear(ctx, x, weight), a, b, 0.5f);
          if (!y) GTEST_SKIP() << "no kernel here takes it";
          tape.backward(ctx, y, dy);
        }
        for (const Tensor& r : {y, x.variable()->grad, low.variable()->grad, a.variable()->grad, b.variable()->grad})
          results[fused].push_back(values_of(r));
      }
      for (size_t i = 0; i < results[0].size(); ++i) EXPECT_LT(relative_error(results[1][i], results[0][i]), 1e-2) << i;
    }
}

}  // namespace
}  // namespace pmetal::ops
