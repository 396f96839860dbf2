// Gradients of bf16 activations whose widths are whole cache lines, so that on a CPU their rows lie spread
// (Context::spread_room): near those in f64, whether an op sees heads or a matrix.
#include <functional>

#include "ops/activation.h"
#include "ops/attention.h"
#include "ops/norm.h"
#include "ops/norm_rope.h"
#include "ops/test_support.h"

namespace pmetal::ops {
namespace {

using namespace testing_support;
using Inputs = std::vector<Tensor>;

struct Case {
  const char* name;
  std::vector<Shape> inputs;
  std::function<Tensor(Context&, const Inputs&)> run;
};

RopeTable turns(Context& ctx, int64_t d, DType dtype) {
  TapeScope off(ctx, nullptr);
  PhiloxStream rng(3, RngPurpose::kSynthetic);
  return rope_table(ctx, ids_of({0, 1, 2, 0, 1, 2, 3}), random_tensor(rng, {d / 2}, DType::kF32, 0.1), 1, dtype);
}

AttentionRows two_sequences() {
  AttentionRows rows;
  rows.cu_q = rows.cu_k = ids_of({0, 3, 7});
  rows.kv_len = ids_of({3, 4});
  rows.max_q = rows.max_kv = 4;
  return rows;
}

const Case kCases[] = {
    {"norm of rows", {{7, 128}, {128}}, [](Context& c, const Inputs& in) { return rms_norm(c, in[0], in[1], 1e-5f); }},
    {"norm of heads",
     {{7, 3, 64}, {64}},
     [](Context& c, const Inputs& in) { return rms_norm(c, in[0], in[1], 1e-5f); }},
    {"norm of heads beside others",
     {{7, 320}, {64}},
     [](Context& c, const Inputs& in) {
       return rms_norm(c, split_heads(c, narrow(c, in[0], 1, 64, 192), 3), in[1], 1e-5f);
     }},
    {"norm of a sum",
     {{7, 3, 64}, {7, 3, 64}, {64}},
     [](Context& c, const Inputs& in) {
       const SumAndNorm r = add_rms_norm(c, in[0], in[1], in[2], 1e-5f);
       return add(c, r.sum, r.normed);
     }},
    {"norm and rope of heads",
     {{7, 3, 64}, {64}},
     [](Context& c, const Inputs& in) { return norm_rope(c, in[0], in[1], 1e-5f, turns(c, 64, in[0].dtype())); }},
    {"rope of heads",
     {{7, 3, 64}},
     [](Context& c, const Inputs& in) { return rope(c, in[0], turns(c, 64, in[0].dtype())); }},
    {"gated pair",
     {{7, 3, 64}, {7, 3, 64}},
     [](Context& c, const Inputs& in) { return glu(c, in[0], in[1], Activation::kSilu); }},
    {"attention",
     {{7, 4, 64}, {7, 2, 64}, {7, 2, 64}},
     [](Context& c, const Inputs& in) { return attention(c, in[0], in[1], in[2], two_sequences(), {}); }},
};

// the output, then the gradient of each input under `seed`
std::vector<std::vector<double>> results(const Case& one, const Inputs& from, const Tensor& seed, DType dtype) {
  Context ctx = make_context(2);
  Inputs in;
  for (const Tensor& t : from) {
    in.push_back(converted(t, dtype));
    in.back().set_variable(std::make_shared<Variable>());
  }
  Tape tape = make_tape(ctx);
  Tensor y;
  {
    TapeScope on(ctx, &tape);
    y = one.run(ctx, in);
  }
  tape.backward(ctx, y, converted(seed, dtype));
  std::vector<std::vector<double>> all{values_of(y)};
  for (const Tensor& t : in) all.push_back(values_of(t.variable()->grad));
  return all;
}

TEST(Spread, Gradients_of_bf16_lie_near_f64) {
  for (const Case& one : kCases) {
    SCOPED_TRACE(one.name);
    PhiloxStream rng(5, RngPurpose::kSynthetic);
    Inputs in;
    for (const Shape& shape : one.inputs) in.push_back(random_tensor(rng, shape, DType::kBF16));
    Context ctx = make_context(1);
    const Tensor seed = random_tensor(rng, one.run(ctx, in).shape(), DType::kBF16);
    const auto got = results(one, in, seed, DType::kBF16), exact = results(one, in, seed, DType::kF64);
    for (size_t i = 0; i < exact.size(); ++i) EXPECT_LT(relative_error(got[i], exact[i]), 2e-2) << "result " << i;
  }
}

TEST(Spread, On_the_host_rows_have_no_gaps) {
  Context ctx = make_context(1);
  PhiloxStream rng(6, RngPurpose::kSynthetic);
  const Tensor x = random_tensor(rng, {3, 64}, DType::kBF16), spread = ctx.empty_spread({3, 64}, DType::kBF16);
  copy(ctx, x, spread);
  EXPECT_FALSE(spread.is_contiguous());
  EXPECT_TRUE(same_bits(to_host(ctx, spread), x));
}

}  // namespace
}  // namespace pmetal::ops
