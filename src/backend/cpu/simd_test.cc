// The vector kernels of row ops against the plain ones: odd sizes, no rows, NaN, both types, every level of the
// machine.
#include <array>

#include "backend/cpu/candidate_testing.h"
#include "ops/activation.h"
#include "ops/embedding.h"
#include "ops/fused_cpu.h"
#include "ops/kv.h"
#include "ops/norm.h"
#include "ops/optim.h"
#include "ops/rope.h"

namespace pmetal::ops {
namespace {

using namespace testing_support;

constexpr int64_t kRows[] = {0, 1, 7, 300};
constexpr int64_t kColumns[] = {1, 5, 16, 33, 128, 1031};
constexpr DType kTypes[] = {DType::kF32, DType::kBF16};
constexpr double kTight = 2e-6;

class Simd : public ::testing::Test {
 protected:
  Context ctx = make_context(2);
  PhiloxStream rng{7, RngPurpose::kInit};
  int compared = 0;
  void TearDown() override { EXPECT_GT(compared, 0); }

  // body(rows, columns, type) over all sizes
  template <class Body>
  void sizes(Body&& body) {
    for (int64_t rows : kRows)
      for (int64_t n : kColumns)
        for (DType t : kTypes) body(rows, n, t);
  }
  Tensor draw(const Shape& shape, DType t) { return random_tensor(rng, shape, t); }
  Tensor with_nan(Tensor t) {
    if (t.numel() > 3) fill(ctx, t.reshaped({t.numel()}).narrowed(0, t.numel() / 2, 1), std::nan(""));
    return t;
  }
};

TEST_F(Simd, Rms_norm_with_and_without_residual_is_the_plain_one) {
  sizes([&](int64_t rows, int64_t n, DType t) {
    const Tensor x = with_nan(draw({rows, n}, t)), r = draw({rows, n}, t), w = draw({n}, t), y = draw({rows, n}, t);
    for (float offset : {0.f, 1.f}) {
      compared += compare_candidates(ctx, rms_norm_cpu, {y, y}, kTight, [&](const std::vector<Tensor>& o) {
        return RmsNormArgs{x.view(), r.view(), w.view(), o[0].view(), o[1].view(), 1e-6f, offset};
      });
      compared += compare_candidates(ctx, rms_norm_cpu, {y}, kTight, [&](const std::vector<Tensor>& o) {
        return RmsNormArgs{x.view(), {}, w.view(), {}, o[0].view(), 1e-6f, offset};
      });
    }
  });
}

TEST_F(Simd, Rms_norm_backward_is_the_plain_one) {
  sizes([&](int64_t rows, int64_t n, DType t) {
    const Tensor x = draw({rows, n}, t), dy = with_nan(draw({rows, n}, t)), w = draw({n}, t), add = draw({rows, n}, t);
    const Tensor dw = draw({n}, DType::kF32);
    compared += compare_candidates(ctx, rms_norm_backward_cpu, {add, dw}, 1e-5, [&](const std::vector<Tensor>& o) {
      return RmsNormBackwardArgs{x.view(), w.view(), dy.view(), o[0].view(), add.view(), o[1].view(), 1e-6f, 0};
    });
  });
}

TEST_F(Simd, Glu_and_its_backward_are_the_plain_ones) {
  sizes([&](int64_t rows, int64_t n, DType t) {
    const Tensor gate = with_nan(random_tensor(rng, {rows, n}, t, 20)), up = draw({rows, n}, t),
                 dy = draw({rows, n}, t);
    for (Activation a : {Activation::kSilu, Activation::kGeluTanh, Activation::kQuickGelu, Activation::kRelu,
                         Activation::kRelu2, Activation::kIdentity}) {
      compared += compare_candidates(ctx, glu_cpu, {dy}, kTight, [&](const std::vector<Tensor>& o) {
        return GluArgs{gate.view(), up.view(), o[0].view(), {}, {}, {}, a};
      });
      compared += compare_candidates(ctx, glu_backward_cpu, {dy, dy}, kTight, [&](const std::vector<Tensor>& o) {
        return GluArgs{gate.view(), up.view(), {}, dy.view(), o[0].view(), o[1].view(), a};
      });
    }
  });
}

// results of 1 MiB and more go past the caches, whole lines at a time; rows that begin within a line do not
TEST_F(Simd, Glu_of_many_rows_is_the_plain_one) {
  const int64_t rows = 700, n = 801;
  for (DType t : kTypes)
    for (int64_t stride : {832, 833}) {
      const auto wide = [&] { return draw({rows, stride}, t).narrowed(1, 0, n); };
      const Tensor gate = wide(), up = wide(), dy = wide(), y = wide(), dgate = wide(), dup = wide();
      const GluArgs forward{gate.view(), up.view(), y.view(), {}, {}, {}, Activation::kSilu};
      const GluArgs backward{gate.view(), up.view(), {}, dy.view(), dgate.view(), dup.view(), Activation::kSilu};
      const auto results = [&](size_t level) {
        run_candidate(ctx, glu_cpu.candidates[level], forward);
        run_candidate(ctx, glu_backward_cpu.candidates[level], backward);
        return std::array{values_of(y), values_of(dgate), values_of(dup)};
      };
      const auto expected = results(glu_cpu.candidates.size() - 1);
      for (size_t level = 0; level + 1 < glu_cpu.candidates.size(); ++level) {
        if (!takes(ctx, glu_cpu.candidates[level], forward)) continue;
        ++compared;
        const auto got = results(level);
        for (size_t i = 0; i < 3; ++i)
          EXPECT_LE(relative_error(got[i], expected[i]), t == DType::kBF16 ? 0x1p-7 : kTight) << i;
      }
    }
}

TEST_F(Simd, Rope_and_its_inverse_are_the_plain_ones) {
  for (int64_t rows : kRows)
    for (int64_t d : {2, 6, 64, 80})
      for (DType t : kTypes) {
        const Tensor x = with_nan(draw({rows, 3, d}, t));
        const int64_t half = d == 80 ? 20 : d / 2;  // part of the head turns
        const Tensor cos = draw({rows, half}, DType::kF32), sin = draw({rows, half}, DType::kF32);
        for (bool inverse : {false, true})
          compared += compare_candidates(ctx, rope_cpu, {x}, kTight, [&](const std::vector<Tensor>& o) {
            return RopeArgs{x.view(), o[0].view(), cos.view(), sin.view(), false, inverse};
          });
      }
}

// the bits of the two ops one after the other on the same level, heads as they lie in a wider row
TEST_F(Simd, Norm_rope_is_norm_and_rope) {
  for (int64_t rows : kRows)
    for (int64_t d : {24, 32, 64, 128, 256})
      for (DType t : kTypes) {
        const int64_t heads = 3, half = d / 2;
        const Tensor wide = draw({rows, heads + 2, d}, t), x = with_nan(wide).narrowed(1, 1, heads), w = draw({d}, t);
        const Tensor cos = draw({rows, half}, DType::kF32), sin = draw({rows, half}, DType::kF32);
        const Tensor dy = with_nan(draw({rows, heads, d}, t)), y = draw({rows, heads, d}, t);
        const Tensor flat = converted(x, t).reshaped({rows * heads, d}), turned = converted(y, t);
        Tensor normed = converted(flat, t), dx = converted(flat, t);
        for (size_t level = 0; level < norm_rope_cpu.candidates.size(); ++level) {
          const float eps = 1e-6f;
          const NormRopeArgs args{x.view(), w.view(), cos.view(), sin.view(), y.view(), eps};
          const NormRopeBackwardArgs back{x.view(), w.view(), cos.view(), sin.view(), dy.view(), y.view(), {}, eps};
          const auto& forward = norm_rope_cpu.candidates[level];
          const auto& backward = norm_rope_backward_cpu.candidates[level];
          EXPECT_EQ(takes(ctx, forward, args), takes(ctx, backward, back));
          EXPECT_TRUE(d != 24 || !takes(ctx, forward, args));
          if (!takes(ctx, forward, args)) continue;
          ++compared;
          run_candidate(ctx, rms_norm_cpu.candidates[level],
                        RmsNormArgs{flat.view(), {}, w.view(), {}, normed.view(), eps, 0});
          const Tensor heads_of = normed.reshaped({rows, heads, d});
          run_candidate(ctx, rope_cpu.candidates[level],
                        RopeArgs{heads_of.view(), turned.view(), cos.view(), sin.view(), false, false});
          run_candidate(ctx, forward, args);
          EXPECT_EQ(relative_error(values_of(y), values_of(turned)), 0) << forward.name << ' ' << d;
          run_candidate(ctx, rope_cpu.candidates[level],
                        RopeArgs{dy.view(), turned.view(), cos.view(), sin.view(), false, true});
          const Tensor turned_rows = turned.reshaped({rows * heads, d});
          run_candidate(ctx, rms_norm_backward_cpu.candidates[level],
                        RmsNormBackwardArgs{flat.view(), w.view(), turned_rows.view(), dx.view(), {}, {}, eps, 0});
          run_candidate(ctx, backward, back);
          EXPECT_EQ(relative_error(values_of(y), values_of(dx.reshaped({rows, heads, d}))), 0) << backward.name;
        }
      }
}

TEST_F(Simd, Arithmetic_copies_and_fills_are_the_plain_ones) {
  sizes([&](int64_t rows, int64_t n, DType t) {
    const Tensor a = with_nan(draw({rows, n}, t));
    for (DType u : kTypes) {
      const Tensor b = draw({rows, n}, u), row = draw({n}, u), column = draw({rows}, u);
      for (int op : {kBinaryAdd, kBinarySub, kBinaryMul, kBinaryDiv})
        for (int broadcast : {0, 1, 2})
          for (bool accumulate : {false, true})
            compared += compare_candidates(ctx, binary_cpu, {a}, kTight, [&](const std::vector<Tensor>& o) {
              return BinaryArgs{a.view(),    (broadcast == 0 ? b : broadcast == 1 ? row : column).view(),
                                o[0].view(), op,
                                accumulate,  broadcast};
            });
      for (int op : {static_cast<int>(kUnaryCopy), static_cast<int>(kUnaryFill), static_cast<int>(kUnaryAffine)})
        compared += compare_candidates(ctx, unary_cpu, {b}, kTight, [&](const std::vector<Tensor>& o) {
          return UnaryArgs{a.view(), o[0].view(), {}, {}, op, 1.5f, -0.25f};
        });
    }
  });
}

TEST_F(Simd, Functions_of_an_element_are_the_plain_ones) {
  sizes([&](int64_t rows, int64_t n, DType t) {
    const Tensor x = with_nan(random_tensor(rng, {rows, n}, t, 4)),
                 positive = affine(ctx, unary(ctx, x, Unary::kAbs), 1, 0.5f);
    for (const Unary u : {Unary::kNeg, Unary::kExp, Unary::kSigmoid, Unary::kSqrt, Unary::kSquare, Unary::kAbs,
                          Unary::kRelu, Unary::kSilu, Unary::kReciprocal}) {
      const Tensor& from = u == Unary::kSqrt || u == Unary::kReciprocal ? positive : x;
      compared += compare_candidates(ctx, unary_cpu, {x}, kTight, [&](const std::vector<Tensor>& o) {
        return UnaryArgs{from.view(), o[0].view(), {}, {}, static_cast<int>(u), 0, 0};
      });
    }
    compared += compare_candidates(ctx, unary_cpu, {x}, 0, [&](const std::vector<Tensor>& o) {
      return UnaryArgs{x.view(), o[0].view(), {}, {}, kUnaryClamp, -0.75f, 1.25f};
    });
  });
}

TEST_F(Simd, Rows_of_tables_are_the_plain_ones) {
  for (int64_t n : kColumns)
    for (DType t : kTypes)
      for (DType u : kTypes)
        for (float scale : {1.f, 0.3f}) {
          const Tensor table = draw({9, n}, u), ids = ids_of({8, 0, 3, 3}), y = draw({4, n}, t);
          compared += compare_candidates(ctx, embedding_cpu, {y}, 0, [&](const std::vector<Tensor>& o) {
            return EmbeddingArgs{ids.view(), nullptr, table.view(), o[0].view(), scale};
          });
          const quant::Format& format = quant::format(u == DType::kBF16 ? "bf16_tile" : "f32_panel");
          quant::Weight weight = quant::allocate(format, 9, n);
          std::vector<float> values(static_cast<size_t>(16 * n));
          convert(table.bytes(), u, values.data(), DType::kF32, 9 * n);
          format.encode_rows(weight, 0, 9, values.data());
          compared += compare_candidates(ctx, embedding_cpu, {y}, 0, [&](const std::vector<Tensor>& o) {
            return EmbeddingArgs{ids.view(), &weight, {}, o[0].view(), scale};
          });
        }
}

TEST_F(Simd, Sum_of_squares_is_the_plain_one) {
  for (int64_t n : {0, 1, 17, 4096, 10007}) {
    const Tensor x = draw({n}, DType::kF32), out = ctx.empty({1}, DType::kF64);
    fill(ctx, out, 0);
    compared += compare_candidates(ctx, sum_squares_cpu, {out}, 1e-12, [&](const std::vector<Tensor>& o) {
      return SumSquaresArgs{x.view(), o[0].view()};
    });
  }
}

TEST_F(Simd, Columns_by_index_are_the_plain_ones) {
  for (DType t : kTypes) {
    const Tensor x = with_nan(draw({4, 9}, t)), index = ids_of({8, 0, 3, 3}), picked = draw({4}, t);
    compared += compare_candidates(ctx, index_rows_cpu, {picked}, 0, [&](const std::vector<Tensor>& o) {
      return IndexArgs{x.view(), index.view(), o[0].view(), kGatherColumns, false};
    });
    for (bool add : {false, true})
      compared += compare_candidates(ctx, index_rows_cpu, {x}, 0, [&](const std::vector<Tensor>& o) {
        return IndexArgs{picked.view(), index.view(), o[0].view(), kScatterColumns, add};
      });
  }
}

TEST_F(Simd, AdamW_is_the_plain_one) {
  for (int64_t n : {1, 15, 64, 10007}) {
    const Tensor w = draw({n}, DType::kF32), g = draw({n}, DType::kF32), m = draw({n}, DType::kF32);
    const Tensor v = draw({n}, DType::kF32), narrow = draw({n}, DType::kBF16);
    for (float& x : std::span(v.data<float>(), static_cast<size_t>(n))) x = std::abs(x);
    compared += compare_candidates(ctx, adamw_cpu, {w, m, v, narrow}, kTight, [&](const std::vector<Tensor>& o) {
      AdamWArgs args;
      args.master = o[0].view(), args.grad = g.view(), args.m = o[1].view(), args.v = o[2].view();
      args.weight = o[3].view();
      args.lr = 1e-3f, args.weight_decay = 0.1f, args.grad_scale = 0.5f, args.step = 3;
      return args;
    });
  }
}

TEST_F(Simd, Rows_by_index_and_appended_keys_are_the_plain_ones) {
  for (DType t : {DType::kF32, DType::kBF16, DType::kI32}) {
    const Tensor x = t == DType::kI32 ? ids_of({5, 4, 3, 2, 1, 0}).reshaped({3, 2}) : draw({3, 2}, t);
    const Tensor index = ids_of({4, 0, 2}), tall = converted(x, t);
    const Tensor y = ctx.empty({5, 2}, t), back = ctx.empty({2, 2}, t), two = ids_of({2, 0});
    fill(ctx, y, 1);
    fill(ctx, back, 1);
    for (bool add : {false, true}) {
      compared += compare_candidates(ctx, index_rows_cpu, {y}, 0, [&](const std::vector<Tensor>& o) {
        return IndexArgs{x.view(), index.view(), o[0].view(), kScatterRows, add};
      });
      compared += compare_candidates(ctx, index_rows_cpu, {back}, 0, [&](const std::vector<Tensor>& o) {
        return IndexArgs{x.view(), two.view(), o[0].view(), kGatherRows, add};
      });
    }
  }
  {  // bf16 rows into f32 sums, as gradients of gathered rows are
    const Tensor x = draw({3, 200}, DType::kBF16), y = draw({5, 200}, DType::kF32), index = ids_of({4, 0, 4});
    compared += compare_candidates(ctx, index_rows_cpu, {y}, 0, [&](const std::vector<Tensor>& o) {
      return IndexArgs{x.view(), index.view(), o[0].view(), kScatterRows, true};
    });
  }
  const Tensor k = draw({3, 2, 5}, DType::kBF16), v = draw({3, 2, 7}, DType::kBF16);
  const Tensor k_pages = draw({2, 2, 64, 5}, DType::kBF16), v_pages = draw({2, 2, 64, 7}, DType::kBF16);
  const Tensor slots = tensor_of<int64_t>({63, -1, 64}, {3}, DType::kI64);
  compared += compare_candidates(ctx, kv_append_cpu, {k_pages, v_pages}, 0, [&](const std::vector<Tensor>& o) {
    return KvAppendArgs{k.view(), v.view(), o[0].view(), o[1].view(), slots.view()};
  });
}

// The processor's own rounding takes subnormals for zero: they, and all that is no number, round as everywhere else.
TEST_F(Simd, Rounding_to_bf16_has_the_same_bits_on_every_level) {
  constexpr uint32_t kLow[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
  const int64_t n = int64_t{std::size(kLow)} << 16;
  const Tensor x = ctx.empty({n}, DType::kF32);
  auto* bits = reinterpret_cast<uint32_t*>(x.bytes());
  for (uint32_t high = 0; high < 1u << 16; ++high)
    for (const uint32_t low : kLow) *bits++ = high << 16 | low;
  const Tensor expected = ctx.empty({n}, DType::kBF16), y = ctx.empty({n}, DType::kBF16);
  convert(x.bytes(), DType::kF32, expected.bytes(), DType::kBF16, n);
  for (const Candidate<UnaryArgs>& level : unary_cpu.candidates) {
    UnaryArgs args;
    args.x = x.view(), args.y = y.view(), args.op = kUnaryCopy;
    if (!takes(ctx, level, args)) continue;
    run_candidate(ctx, level, args);
    EXPECT_TRUE(same_bits(y, expected)) << level.name;
    ++compared;
  }
}

// bit for bit what rms_norm, rope and kv_append of the same level give one after the other
TEST_F(Simd, Rope_append_is_norm_rope_and_append) {
  for (const DType t : kTypes)
    for (const bool has_norms : {false, true})
      for (const int64_t d : {10, 16, 40, 128}) {
        const int64_t n = 7, heads = 6, kv_heads = 2, half = d == 40 ? 12 : d / 2;
        const Tensor q = draw({n, heads, d}, t), k = draw({n, kv_heads, d}, t), v = draw({n, kv_heads, d}, t);
        const Tensor q_norm = draw({d}, t), k_norm = draw({d}, t);
        const Tensor cos = draw({n, half}, DType::kF32), sin = draw({n, half}, DType::kF32);
        const Tensor slots = tensor_of<int64_t>({63, -1, 64, 0, 1, 127, 5}, {n}, DType::kI64);
        for (size_t level = 0; level < rope_append_cpu.candidates.size(); ++level) {
          const Tensor k_pages = draw({2, kv_heads, 64, d}, t), v_pages = draw({2, kv_heads, 64, d}, t);
          const Tensor k_expected = converted(k_pages, t), v_expected = converted(v_pages, t);
          const Tensor out = draw({n, heads, d}, t);
          RopeAppendArgs args;
          args.q = q.view(), args.k = k.view(), args.v = v.view(), args.cos = cos.view(), args.sin = sin.view();
          if (has_norms) args.q_norm = q_norm.view(), args.k_norm = k_norm.view();
          args.q_out = out.view(), args.k_pages = k_pages.view(), args.v_pages = v_pages.view();
          args.slots = slots.view(), args.eps = 1e-6f;
          if (!takes(ctx, rope_append_cpu.candidates[level], args)) continue;
          run_candidate(ctx, rope_append_cpu.candidates[level], args);
          const auto turned = [&](const Tensor& x, const Tensor& norm) {
            Tensor normed = converted(x, t), y = converted(x, t);
            if (has_norms)
              run_candidate(ctx, rms_norm_cpu.candidates[level],
                            RmsNormArgs{x.reshaped({x.numel() / d, d}).view(),
                                        {},
                                        norm.view(),
                                        {},
                                        normed.reshaped({x.numel() / d, d}).view(),
                                        1e-6f,
                                        0});
            run_candidate(ctx, rope_cpu.candidates[level],
                          RopeArgs{normed.view(), y.view(), cos.view(), sin.view(), false, false});
            return y;
          };
          const Tensor k_turned = turned(k, k_norm);
          run_candidate(ctx, kv_append_cpu.candidates[0],
                        KvAppendArgs{k_turned.view(), v.view(), k_expected.view(), v_expected.view(), slots.view()});
          EXPECT_TRUE(same_bits(out, turned(q, q_norm))) << rope_append_cpu.candidates[level].name << " " << d;
          EXPECT_TRUE(same_bits(k_pages, k_expected)) << d;
          EXPECT_TRUE(same_bits(v_pages, v_expected)) << d;
          ++compared;
        }
      }
}

}  // namespace
}  // namespace pmetal::ops
