// head_loss on tiles, on the hardware's and on emulated ones, against the plain kernel on the same values in f32; what
// its references must hold out: logits far apart, ties, NaN; and the promise on bits.
#include "backend/cpu/head_loss_tiles.h"

#include "backend/cpu/candidate_testing.h"
#include "backend/cpu/gemm/amx_emulated.h"
#include "backend/cpu/gemm/amx_tiles.h"
#include "ops/head_loss.h"

namespace pmetal::cpu {
namespace {

using namespace testing_support;
using ops::HeadLossArgs;

std::vector<bool> kinds() {
  if (isa() == Isa::kAmx) return {false, true};
  return isa() >= Isa::kAvx512Bf16 ? std::vector<bool>{true} : std::vector<bool>{};
}

template <class Tiles>
void run_tiles(Context& ctx, const GemmKernels& kernels, const HeadLossArgs& args) {
  KernelContext kernel{&ctx.threads(), nullptr, 0, nullptr, 0};
  ASSERT_EQ(HeadLossTiles<Tiles>::decline(args), nullptr);
  const HeadLossTiles<Tiles> loss(kernels, args, workers_of(kernel));
  kernel.workspace_bytes = loss.workspace();
  const Buffer workspace = ctx.allocator().allocate(kernel.workspace_bytes);
  std::memset(workspace.data(), 0xff, static_cast<size_t>(kernel.workspace_bytes));  // NaN
  kernel.workspace = workspace.data();
  loss.run(kernel);
}
void run_tiles(Context& ctx, bool emulated, const HeadLossArgs& args) {
  if (emulated)
    run_tiles<EmulatedTiles>(ctx, amx_emulated_kernels(kernels_for(std::min(isa(), Isa::kAvx512Bf16))), args);
  else
    run_tiles<HardwareTiles>(ctx, amx_kernels(), args);
}

quant::Weight frozen(std::string_view format, const Tensor& values) {
  quant::Weight w = quant::allocate(quant::format(format), values.dim(0), values.dim(1));
  const Tensor wide = converted(values, DType::kF32);
  w.format->encode_rows(w, 0, w.out, wide.data<float>());
  return w;
}

struct Results {
  Tensor nll, entropy, correct, dhidden;
  Results(Context& ctx, int64_t rows, int64_t n, DType dtype)
      : nll(ctx.empty({rows}, DType::kF32)),
        entropy(ctx.empty({rows}, DType::kF32)),
        correct(ctx.empty({rows}, DType::kU8)),
        dhidden(ctx.empty({rows, n}, dtype)) {}
  void enter(HeadLossArgs& args) const {
    args.nll = nll.view(), args.entropy = entropy.view(), args.correct = correct.view(), args.dhidden = dhidden.view();
  }
};

struct Problem {
  Tensor hidden, wide_hidden, values, labels, scale;
  quant::Weight tiles, wide;
  HeadLossArgs args;

  Problem(PhiloxStream& rng, int64_t rows, int64_t n, int64_t vocabulary, double spread)
      : hidden(random_tensor(rng, {rows, n}, DType::kBF16, spread)),
        wide_hidden(converted(hidden, DType::kF32)),
        values(random_tensor(rng, {vocabulary, n}, DType::kBF16, 0.3)) {
    std::vector<int32_t> ids;
    std::vector<float> scales;
    for (int64_t i = 0; i < rows; ++i) {
      ids.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocabulary))));
      scales.push_back(static_cast<float>(rng.uniform()));
    }
    labels = ids_of(ids);
    scale = floats_of(scales, {rows});
    pack();
    args.hidden = hidden.view(), args.labels = labels.view(), args.row_scale = scale.view();
  }
  void pack() {
    tiles = frozen("bf16_tile", values);
    wide = frozen("f32", values);
  }

  // the label of each second row becomes its best; that of each fourth the last, where another precedes it
  void learn() const {
    const std::vector<double> h = values_of(hidden), w = values_of(values);
    const int64_t n = hidden.dim(1);
    for (int64_t r = 0; r < hidden.dim(0); r += 2) {
      double most = -INFINITY;
      for (int64_t v = 0; v < values.dim(0); ++v) {
        double z = 0;
        for (int64_t i = 0; i < n; ++i) z += h[static_cast<size_t>(r * n + i)] * w[static_cast<size_t>(v * n + i)];
        if (z > most || (z == most && r % 4 == 0)) labels.data<int32_t>()[r] = static_cast<int32_t>(v), most = z;
      }
    }
  }

  Results plain(Context& ctx) const {
    Results to(ctx, hidden.dim(0), hidden.dim(1), DType::kF32);
    HeadLossArgs a = args;
    a.hidden = wide_hidden.view(), a.weight = &wide;
    to.enter(a);
    run_candidate(ctx, ops::head_loss_cpu.candidates.back(), a);
    return to;
  }
  Results ours(Context& ctx, bool emulated, DType dtype = DType::kF32) const {
    Results to(ctx, hidden.dim(0), hidden.dim(1), dtype);
    HeadLossArgs a = args;
    a.weight = &tiles;
    to.enter(a);
    run_tiles(ctx, emulated, a);
    return to;
  }
};

void expect_close(const Results& got, const Results& expected) {
  EXPECT_LT(relative_error(values_of(got.nll), values_of(expected.nll)), 1e-5);
  EXPECT_LT(relative_error(values_of(got.entropy), values_of(expected.entropy)), 2e-5);
  EXPECT_LT(relative_error(values_of(got.dhidden), values_of(expected.dhidden)), 4e-3);  // e is rounded to bf16
  EXPECT_TRUE(same_bits(got.correct, expected.correct));
}

TEST(Head_loss_tiles, Equal_the_plain_kernel) {
  Context ctx = make_context(2);
  const struct {
    int64_t rows, n, vocabulary;
    double spread;
  } cases[] = {{1, 32, 32, 1},      {37, 24, 203, 1},  {70, 64, 1040, 1},  {33, 96, 1000, 3}, {300, 32, 500, 1},
               {16, 544, 700, 0.5}, {5, 16, 17000, 1}, {4, 16, 17000, 60}, {40, 64, 700, 100}};
  for (const auto& c : cases)
    for (int options = 0; options < 3; ++options) {
      SCOPED_TRACE(testing::Message() << c.rows << ' ' << c.n << ' ' << c.vocabulary << ' ' << options);
      PhiloxStream rng(static_cast<uint64_t>(c.rows), RngPurpose::kSynthetic);
      Problem p(rng, c.rows, c.n, c.vocabulary, c.spread);
      p.learn();
      if (options > 0) p.args.z_loss = 0.01f, p.args.logit_scale = 0.7f;
      if (options > 1) p.args.softcap = 9;
      const Results expected = p.plain(ctx);
      for (bool emulated : kinds()) {
        SCOPED_TRACE(emulated ? "emulated" : "hardware");
        expect_close(p.ours(ctx, emulated), expected);
      }
      if (testing::Test::HasFailure()) return;
    }
}

// Logits of ±900 beside labels of −900: the reference follows several times within a chunk and between chunks
TEST(Head_loss_tiles, Follow_logits_that_lie_far_above_the_label) {
  Context ctx = make_context(1);
  PhiloxStream rng(8, RngPurpose::kSynthetic);
  const int64_t vocabulary = 1300;
  Problem p(rng, 32, 32, vocabulary, 1);
  for (int64_t v = 0; v < vocabulary; ++v)
    for (int64_t i = 0; i < 32; ++i) {
      const int64_t level = v / 130;  // of ten
      const float steps = -30.f + 60.f * static_cast<float>(level) / 9;
      p.values.data<BF16>()[v * 32 + i] = narrow_to<BF16>(steps + static_cast<float>((v * 7 + i * 3) % 5) * 0.25f);
    }
  for (int64_t i = 0; i < 32 * 32; ++i)
    p.hidden.data<BF16>()[i] = narrow_to<BF16>((i / 32 % 2 ? 1.f : -1.f) * (0.9f + 0.01f * static_cast<float>(i % 7)));
  p.wide_hidden = converted(p.hidden, DType::kF32);
  p.pack();
  for (int64_t r = 0; r < 32; ++r)
    p.labels.data<int32_t>()[r] = static_cast<int32_t>(r % 2 ? r : r % 4 ? vocabulary - 1 - r : r * 40);
  const Results expected = p.plain(ctx);
  for (bool emulated : kinds()) expect_close(p.ours(ctx, emulated), expected);
}

// One slice has followed a logit of 48.5, the other, of 44.25, not: both matter
TEST(Head_loss_tiles, Slices_of_unequal_references_meet) {
  Context ctx = make_context(1);
  PhiloxStream rng(8, RngPurpose::kSynthetic);
  Problem p(rng, 2, 32, 16384 + 64, 1);
  std::memset(p.values.bytes(), 0, static_cast<size_t>(p.values.size_bytes()));
  for (int64_t i = 0; i < 32; ++i) {
    for (int64_t r = 0; r < 2; ++r) p.hidden.data<BF16>()[r * 32 + i] = narrow_to<BF16>(1.f);
    p.values.data<BF16>()[5 * 32 + i] = narrow_to<BF16>(48.5f / 32);
    for (int64_t v = 16384; v < 16384 + 60; ++v) p.values.data<BF16>()[v * 32 + i] = narrow_to<BF16>(44.25f / 32);
  }
  p.wide_hidden = converted(p.hidden, DType::kF32);
  p.pack();
  p.labels = ids_of({100, 16384});
  p.args.labels = p.labels.view();
  const Results expected = p.plain(ctx);
  for (bool emulated : kinds()) expect_close(p.ours(ctx, emulated), expected);
}

TEST(Head_loss_tiles, Only_the_first_of_equal_maxima_is_correct) {
  Context ctx = make_context(1);
  PhiloxStream rng(9, RngPurpose::kSynthetic);
  Problem p(rng, 3, 32, 200, 1);
  for (int64_t i = 0; i < 32; ++i) {
    const BF16 h = narrow_to<BF16>(1 + static_cast<float>(i % 3));
    for (int64_t r = 0; r < 3; ++r) p.hidden.data<BF16>()[r * 32 + i] = h;
    for (int64_t v : {40, 150}) p.values.data<BF16>()[v * 32 + i] = h;  // far above all others
  }
  p.pack();
  p.labels = ids_of({40, 150, 7});
  p.args.labels = p.labels.view();
  for (bool emulated : kinds()) {
    const Results r = p.ours(ctx, emulated);
    EXPECT_EQ(values_of(r.correct), (std::vector<double>{1, 0, 0}));
  }
}

TEST(Head_loss_tiles, A_NaN_stays_in_its_row) {
  Context ctx = make_context(1);
  PhiloxStream rng(4, RngPurpose::kSynthetic);
  const Problem p(rng, 40, 32, 1100, 1);
  for (bool emulated : kinds()) {
    const Results clean = p.ours(ctx, emulated);
    const uint16_t old = p.hidden.data<uint16_t>()[8 * 32 + 3];
    p.hidden.data<uint16_t>()[8 * 32 + 3] = 0x7fc0;
    const Results r = p.ours(ctx, emulated);
    p.hidden.data<uint16_t>()[8 * 32 + 3] = old;
    const std::vector<double> nll = values_of(r.nll), gradient = values_of(r.dhidden),
                              before = values_of(clean.dhidden);
    EXPECT_TRUE(std::isnan(nll[8]) && std::isnan(gradient[8 * 32]));
    EXPECT_EQ(values_of(r.correct)[8], 0);
    for (size_t i = 0; i < before.size(); ++i)
      if (i / 32 != 8) {
        EXPECT_EQ(gradient[i], before[i]) << i;
      }
  }
}

TEST(Head_loss_tiles, Bits_do_not_depend_on_other_rows_or_threads) {
  Context two = make_context(2), one = make_context(1);
  PhiloxStream rng(5, RngPurpose::kSynthetic);
  const int64_t rows = 300, n = 64;
  for (bool emulated : kinds()) {
    // two blocks of rows, two slices or chunks, references that follow
    const Problem p(rng, rows, n, emulated ? 1100 : 17100, 4);
    const Results all = p.ours(two, emulated, DType::kBF16);
    for (const int64_t first : {3, 255, 299}) {
      const int64_t m = std::min<int64_t>(rows - first, 40);
      const auto part = [&](const Tensor& t) { return t.narrowed(0, first, m); };
      const Tensor hidden = part(p.hidden), labels = part(p.labels), scale = part(p.scale);
      const Results alone(one, m, n, DType::kBF16);
      HeadLossArgs args = p.args;
      args.hidden = hidden.view(), args.labels = labels.view(), args.row_scale = scale.view(), args.weight = &p.tiles;
      alone.enter(args);
      run_tiles(one, emulated, args);
      EXPECT_TRUE(same_bits(converted(part(all.nll), DType::kF32), alone.nll)) << first;
      EXPECT_TRUE(same_bits(converted(part(all.entropy), DType::kF32), alone.entropy)) << first;
      EXPECT_TRUE(same_bits(converted(part(all.dhidden), DType::kBF16), alone.dhidden)) << first;
    }
  }
}

}  // namespace
}  // namespace pmetal::cpu
