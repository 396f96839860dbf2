// Every differentiable op against central finite differences, in f64 through the plain kernels. The last test fails
// when a kernel table is neither reached by a case here nor named as not differentiable.
#include <functional>
#include <set>
#include <string>

#include "ops/headers.inc"
#include "ops/kernel_lists.h"
#include "ops/test_support.h"

namespace pmetal::ops {
namespace {

using namespace testing_support;
using Inputs = std::vector<Tensor>;

struct Case {
  std::string name;
  std::vector<std::string> tables;  // kernel tables that it runs, forward and backward
  std::vector<Shape> inputs;
  std::function<Tensor(Context&, const Inputs&)> run;
  double low = -INFINITY;  // inputs are moved above this (for log, sqrt ...)
};

Tensor ones(Context& c, int64_t n) {
  const Tensor t = c.empty({n}, DType::kF64);
  fill(c, t, 1);
  return t;
}

quant::Weight frozen(int64_t out, int64_t in, uint64_t seed) {
  PhiloxStream rng(seed, RngPurpose::kSynthetic);
  const Tensor values = random_tensor(rng, {out, in});
  quant::Weight w = quant::allocate(quant::format("f32"), out, in);
  w.format->encode_rows(w, 0, out, values.data<float>());
  return w;
}

Case unary_case(const char* name, Unary op, double low = -INFINITY) {
  return {std::string("unary ") + name,
          {"unary", "unary_backward"},
          {{3, 5}},
          [op](Context& c, const Inputs& in) { return unary(c, in[0], op); },
          low};
}

Case glu_case(const char* name) {
  return {std::string("glu ") + name, {"glu", "glu_backward"}, {{4, 9}, {4, 9}}, [name](Context& c, const Inputs& in) {
            return glu(c, in[0], in[1], parse_activation(name));
          }};
}

AttentionRows ragged(const std::vector<int32_t>& queries, const std::vector<int32_t>& keys) {
  std::vector<int32_t> cu_q{0}, cu_k{0};
  AttentionRows rows;
  for (size_t s = 0; s < keys.size(); ++s) {
    cu_q.push_back(cu_q.back() + queries[s]);
    cu_k.push_back(cu_k.back() + keys[s]);
    rows.max_q = std::max<int64_t>(rows.max_q, queries[s]);
    rows.max_kv = std::max<int64_t>(rows.max_kv, keys[s]);
  }
  rows.cu_q = ids_of(cu_q);
  rows.cu_k = ids_of(cu_k);
  rows.kv_len = ids_of(keys);
  return rows;
}

Case attention_case(const char* name, AttentionMask mask, float softcap, bool sinks) {
  return {std::string("attention ") + name,
          {"attention", "attention_backward"},
          {{9, 4, 3}, {12, 2, 3}, {12, 2, 5}, {4}},
          [=](Context& c, const Inputs& in) {
            AttentionOptions options;
            options.mask = mask;
            options.scale = 0.7f;
            options.softcap = softcap;
            if (sinks) options.sinks = in[3];
            return attention(c, in[0], in[1], in[2], ragged({4, 5}, {7, 5}), options);
          }};
}

Case head_case(const char* name, bool dense, HeadLossOptions options) {
  std::vector<Shape> shapes{{6, 5}};
  if (dense) shapes.push_back({11, 5});
  return {std::string("head_loss ") + name, {"head_loss"}, shapes, [=](Context& c, const Inputs& in) {
            static const quant::Weight weight = frozen(11, 5, 3);
            return head_loss(c, in[0], dense ? nullptr : &weight, dense ? in[1] : Tensor(), ids_of({0, 10, 3, 3, 7, 1}),
                             floats_of({0.1f, 0.2f, 0.f, 0.3f, 0.1f, 0.5f}, {6}), options)
                .loss;
          }};
}

// Three parts, the last without an update, around a matrix of fixed weights: a gated pair (whose gradients are written
// where they belong) and columns that are used on their own.
Tensor updated_group(Context& c, const Inputs& in, int64_t room) {
  constexpr int64_t kIn = 6, kOut = 10, kRank = 3;
  LoraGroup group = empty_lora_group(c, kOut, kIn, lora_rank(kRank), DType::kF64);
  PhiloxStream rng(5, RngPurpose::kSynthetic);
  copy(c, random_tensor(rng, {kOut, kIn}, DType::kF64), group.matrix.narrowed(0, 0, kOut).narrowed(1, 0, kIn));
  group.scale = 0.7f;
  const Tensor x = rms_norm(c, in[0], ones(c, kIn), 1e-5f, 0, room);
  const LoraPart parts[] = {{4, in[1], in[2]}, {4, in[3], in[4]}, {2, {}, {}}};
  const std::vector<Tensor> y = lora_group(c, x, group, parts);
  const Tensor gated = glu(c, y[0], y[1], Activation::kSilu);
  const Tensor both[] = {gated, merge_heads(c, affine(c, split_heads(c, y[2], 2), 2))};
  return concat_columns(c, both);
}

Tensor squared_probabilities(Context& c, const Tensor& logits, int64_t) {
  return sum(c, unary(c, softmax(c, logits), Unary::kSquare));
}

std::vector<Case> cases() {
  static const quant::Weight weight = frozen(7, 5, 1);
  const Tensor ids = ids_of({2, 0, 2, 1}), distinct = ids_of({4, 0, 2});
  const auto strided = [](Context& c, const Tensor& x) { return narrow(c, x, 1, 1, 3); };
  std::vector<Case> all = {
      {"add", {"binary"}, {{3, 4}, {3, 4}}, [](auto& c, auto& in) { return add(c, in[0], in[1]); }},
      {"add to itself", {"binary"}, {{3, 4}}, [](auto& c, auto& in) { return add(c, in[0], in[0]); }},
      {"sub", {"binary"}, {{3, 4}, {3, 4}}, [](auto& c, auto& in) { return sub(c, in[0], in[1]); }},
      {"mul", {"binary"}, {{3, 4}, {3, 4}}, [](auto& c, auto& in) { return mul(c, in[0], in[1]); }},
      {"div", {"binary"}, {{3, 4}, {3, 4}}, [](auto& c, auto& in) { return div(c, in[0], in[1]); }, 0.5},
      {"minimum", {"binary"}, {{3, 4}, {3, 4}}, [](auto& c, auto& in) { return minimum(c, in[0], in[1]); }},
      {"maximum", {"binary"}, {{3, 4}, {3, 4}}, [](auto& c, auto& in) { return maximum(c, in[0], in[1]); }},
      {"affine", {"unary"}, {{3, 4}}, [](auto& c, auto& in) { return affine(c, in[0], -2.5f, 0.75f); }},
      {"add_row", {"binary"}, {{3, 4}, {4}}, [](auto& c, auto& in) { return add_row(c, in[0], in[1]); }},
      {"mul_row", {"binary"}, {{3, 4}, {4}}, [](auto& c, auto& in) { return mul_row(c, in[0], in[1]); }},
      {"mul_column", {"binary"}, {{3, 4}, {3}}, [](auto& c, auto& in) { return mul_column(c, in[0], in[1]); }},
      unary_case("neg", Unary::kNeg),
      unary_case("exp", Unary::kExp),
      unary_case("log", Unary::kLog, 0.5),
      unary_case("sigmoid", Unary::kSigmoid),
      unary_case("log_sigmoid", Unary::kLogSigmoid),
      unary_case("tanh", Unary::kTanh),
      unary_case("sqrt", Unary::kSqrt, 0.5),
      unary_case("square", Unary::kSquare),
      unary_case("abs", Unary::kAbs),
      unary_case("relu", Unary::kRelu),
      unary_case("silu", Unary::kSilu),
      unary_case("gelu", Unary::kGelu),
      unary_case("reciprocal", Unary::kReciprocal, 0.5),
      {"clamp", {"unary", "unary_backward"}, {{5, 5}}, [](auto& c, auto& in) { return clamp(c, in[0], -0.5f, 0.8f); }},
      {"cast",
       {"unary"},
       {{3, 4}},
       [](auto& c, auto& in) { return cast(c, cast(c, in[0], DType::kF64), DType::kF64); }},
      {"softmax", {"row_reduce", "row_reduce_backward"}, {{3, 6}}, [](auto& c, auto& in) { return softmax(c, in[0]); }},
      {"log_softmax", {"row_reduce"}, {{3, 6}}, [](auto& c, auto& in) { return log_softmax(c, in[0]); }},
      {"logsumexp", {"row_reduce"}, {{3, 6}}, [](auto& c, auto& in) { return logsumexp(c, in[0]); }},
      {"sum", {"row_reduce"}, {{3, 6}}, [](auto& c, auto& in) { return sum(c, in[0]); }},
      {"mean", {"row_reduce"}, {{3, 6}}, [](auto& c, auto& in) { return mean(c, in[0]); }},
      {"sum_rows", {"row_reduce"}, {{3, 6}}, [](auto& c, auto& in) { return sum_rows(c, in[0]); }},
      {"gather_columns", {"index_rows"}, {{4, 3}}, [=](auto& c, auto& in) { return gather_columns(c, in[0], ids); }},
      {"gather_distinct_rows",
       {"index_rows"},
       {{4, 3}},
       [](auto& c, auto& in) { return gather_distinct_rows(c, in[0], ids_of({2, 0, 3})); }},
      {"gather_rows", {"index_rows"}, {{3, 4}}, [=](auto& c, auto& in) { return gather_rows(c, in[0], ids); }},
      {"scatter_rows",
       {"index_rows"},
       {{3, 4}},
       [=](auto& c, auto& in) { return scatter_rows(c, in[0], distinct, 6); }},
      {"reshape",
       {},
       {{3, 4}},
       [](auto& c, auto& in) {
         return softmax(c, reshape(c, in[0], {2, 6}));
       }},
      {"narrow", {"unary"}, {{3, 5}}, [=](auto& c, auto& in) { return softmax(c, strided(c, in[0])); }},
      {"narrow, then reshape",
       {"unary"},
       {{3, 5}},
       [=](auto& c, auto& in) { return reshape(c, strided(c, in[0]), {9}); }},
      {"contiguous", {"unary"}, {{3, 5}}, [=](auto& c, auto& in) { return contiguous(c, strided(c, in[0])); }},
      {"concat_columns",
       {"unary"},
       {{3, 2}, {3, 4}},
       [](auto& c, auto& in) { return softmax(c, concat_columns(c, in)); }},
      {"concat_rows", {"unary"}, {{2, 3}, {4, 3}}, [](auto& c, auto& in) { return softmax(c, concat_rows(c, in)); }},
      {"dropout",
       {"dropout"},
       {{3, 9}},
       [](auto& c, auto& in) {
         return dropout(c, in[0], 0.4f, {7, 3, 2}, tensor_of<int64_t>({5, 1, int64_t{1} << 40}, {3}, DType::kI64));
       }},
      {"linear", {"linear"}, {{4, 5}, {7}}, [](auto& c, auto& in) { return linear(c, in[0], weight, in[1]); }},
      {"linear_transposed",
       {"linear"},
       {{4, 7}},
       [](auto& c, auto& in) { return linear_transposed(c, in[0], weight); }},
      {"linear_dense",
       {"matmul", "binary"},
       {{4, 5}, {7, 5}, {7}},
       [](auto& c, auto& in) { return linear_dense(c, in[0], in[1], in[2]); }},
      {"linear of a recomputed input",
       {"matmul", "glu"},
       {{4, 5}, {7, 5}},
       [](auto& c, auto& in) { return linear_dense(c, activate(c, affine(c, in[0], 2), Activation::kGelu), in[1]); }},
      {"rms_norm",
       {"rms_norm", "rms_norm_backward"},
       {{4, 6}, {6}},
       [](auto& c, auto& in) { return rms_norm(c, in[0], in[1], 1e-5f, 0); }},
      {"rms_norm with offset, per head",
       {"rms_norm"},
       {{4, 2, 6}, {6}},
       [](auto& c, auto& in) { return rms_norm(c, in[0], in[1], 1e-5f, 1); }},
      {"add_rms_norm",
       {"rms_norm"},
       {{4, 6}, {4, 6}, {6}},
       [](auto& c, auto& in) {
         const SumAndNorm out = add_rms_norm(c, in[0], in[1], in[2], 1e-5f);
         return mul(c, out.sum, out.normed);
       }},
      {"activate",
       {"glu", "glu_backward"},
       {{4, 6}},
       [](auto& c, auto& in) { return activate(c, in[0], Activation::kQuickGelu); }},
      glu_case("silu"),
      glu_case("gelu"),
      glu_case("gelu_pytorch_tanh"),
      glu_case("relu"),
      glu_case("relu2"),
      glu_case("quick_gelu"),
      glu_case("linear"),
      {"embedding_dense",
       {"embedding", "embedding_backward"},
       {{3, 5}},
       [=](auto& c, auto& in) { return embedding_dense(c, ids, in[0], DType::kF64, 1.5f); }},
      attention_case("causal", {}, 0, false),
      attention_case("bidirectional, sinks", {MaskKind::kBidirectional, 0, 0}, 0, true),
      attention_case("window, softcap", {MaskKind::kCausal, 3, 0}, 1.5f, false),
      attention_case("chunk, softcap, sinks", {MaskKind::kCausal, 0, 4}, 2, true),
      attention_case("bidirectional window", {MaskKind::kBidirectional, 2, 0}, 0, false),
      head_case("frozen", false, {}),
      head_case("trainable", true, {}),
      head_case("all terms", true, {0.8f, 3, 0.01f, 0.1f, true}),
      head_case("all terms, frozen", false, {1.3f, 5, 0.02f, 0.2f, false}),
      {"token_logprobs",
       {"head_loss"},
       {{6, 5}, {11, 5}},
       [](auto& c, auto& in) {
         return token_logprobs(c, in[0], nullptr, in[1], ids_of({0, 10, 3, 3, 7, 1}), {0.8f, 3}).logprobs;
       }},
      {"token_logprobs frozen",
       {"head_loss"},
       {{4, 5}},
       [](auto& c, auto& in) {
         return unary(c, token_logprobs(c, in[0], &weight, {}, ids_of({0, 6, 3, 3})).logprobs, Unary::kExp);
       }},
      {"head_chunks",
       {"linear", "matmul"},
       {{6, 5}, {11, 5}},
       [](auto& c, auto& in) {
         return affine(c, head_chunks(c, in[0], nullptr, in[1], {0.8f, 3}, squared_probabilities), 3);
       }},
      {"head_chunks frozen",
       {"linear"},
       {{6, 5}},
       [](auto& c, auto& in) { return head_chunks(c, in[0], &weight, {}, {}, squared_probabilities); }},
      {"lora_group",
       {"matmul"},
       {{5, 6}, {2, 6}, {4, 2}, {1, 6}, {4, 1}},
       [](auto& c, auto& in) { return updated_group(c, in, 0); }},
      {"lora_group of rows with room",
       {"matmul"},
       {{5, 6}, {2, 6}, {4, 2}, {1, 6}, {4, 1}},
       [](auto& c, auto& in) { return updated_group(c, in, 9); }},
      {"checkpoint",
       {"glu", "matmul"},
       {{4, 5}, {3, 5}},
       [](auto& c, auto& in) {
         return checkpoint(c, in[0], [w = in[1]](Context& inner, const Tensor& x) {
           return unary(inner, linear_dense(inner, x, w), Unary::kTanh);
         });
       }},
  };
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true})
      all.push_back(
          {fmt::format("matmul {} {}", transpose_a, transpose_b),
           {"matmul"},
           {transpose_a ? Shape{5, 4} : Shape{4, 5}, transpose_b ? Shape{3, 5} : Shape{5, 3}},
           [=](Context& c, const Inputs& in) { return matmul(c, in[0], in[1], transpose_a, transpose_b, 0.5f); }});
  for (const bool interleaved : {false, true})
    all.push_back(
        {fmt::format("rope {}", interleaved), {"rope"}, {{3, 2, 6}}, [=](Context& c, const Inputs& in) {
           const RopeTable table = rope_table(c, ids_of({0, 5, 9}), floats_of({1.f, 0.3f}, {2}), 1.25f, DType::kF64);
           return rope(c, in[0], table, interleaved);
         }});
  return all;
}

TEST(Gradcheck, Every_op_equals_central_differences) {
  Context ctx = make_context();
  for (const Case& one : cases()) {
    SCOPED_TRACE(one.name);
    PhiloxStream rng(11, RngPurpose::kSynthetic, std::hash<std::string>{}(one.name));
    Inputs plain, leaves;
    for (const Shape& shape : one.inputs) {
      Tensor t = random_tensor(rng, shape, DType::kF64);
      for (int64_t i = 0; i < t.numel(); ++i)
        if (t.data<double>()[i] < one.low) t.data<double>()[i] = 2 * one.low - t.data<double>()[i];
      plain.push_back(t);
      leaves.push_back(make_leaf(t, "x"));
    }
    Tape tape = make_tape();
    ctx.set_tape(&tape);
    const Tensor y = one.run(ctx, leaves);
    ctx.set_tape(nullptr);
    ASSERT_TRUE(y.requires_grad());
    const Tensor seed = random_tensor(rng, y.shape(), DType::kF64);
    tape.backward(ctx, y, seed);
    EXPECT_EQ(tape.size(), 0u);

    const std::vector<double> weights = values_of(seed);
    const auto loss = [&] {
      const std::vector<double> v = values_of(one.run(ctx, plain));
      double total = 0;
      for (size_t i = 0; i < v.size(); ++i) total += v[i] * weights[i];
      return total;
    };
    for (size_t k = 0; k < plain.size(); ++k) {
      const Tensor& gradient = leaves[k].variable()->grad;
      if (!gradient.defined()) {  // only an input that the case does not use
        EXPECT_EQ(one.name.find("sinks"), std::string::npos);
        EXPECT_TRUE(one.name.starts_with("attention") && k == 3) << "input " << k << " has no gradient";
        continue;
      }
      EXPECT_EQ(gradient.shape().to_string(), plain[k].shape().to_string());
      const std::vector<double> analytic = values_of(gradient);
      for (int64_t i = 0; i < plain[k].numel(); ++i) {
        double& x = plain[k].data<double>()[i];
        const double before = x, h = 1e-5;
        x = before + h;
        const double above = loss();
        x = before - h;
        const double below = loss();
        x = before;
        const double numeric = (above - below) / (2 * h);
        EXPECT_NEAR(analytic[static_cast<size_t>(i)], numeric, 2e-7 * std::max(1.0, std::abs(numeric)))
            << "input " << k << " element " << i;
      }
    }
  }
}

TEST(Gradcheck, Covers_every_kernel_table) {
  std::set<std::string> covered = {"adamw", "sum_squares", "rope_table", "kv_append", "transfer"};  // no derivative
  for (const Case& one : cases()) covered.insert(one.tables.begin(), one.tables.end());
  ASSERT_FALSE(kernel_lists().empty());
  for (const KernelListing& list : kernel_lists()) {
    if (list.is_fused) continue;  // stands for ops that are here, and only while nothing is recorded
    EXPECT_TRUE(covered.contains(std::string(list.op))) << list.op << " has no gradient check";
    ASSERT_FALSE(list.cpu.empty()) << list.op;
    EXPECT_EQ(list.cpu.back(), "plain") << list.op;
  }
}

}  // namespace
}  // namespace pmetal::ops
