// low_grad on tiles, of this machine and emulated, against sums in f64: odd sizes, strided rows, both layouts of the
// narrow matrices; and that bits depend on neither threads nor other rows.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/cpu/gemm/amx_emulated.h"
#include "backend/cpu/gemm/amx_tiles.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/narrow_tiles.h"
#include "base/rng.h"
#include "ops/test_support.h"

namespace pmetal::cpu {
namespace {

using ops::LowGradArgs;

template <class Tiles>
void run_on(Context& ctx, const GemmKernels& kernels, const LowGradArgs& args) {
  const NarrowProducts<Tiles> products(kernels, args);
  KernelContext kernel{&ctx.threads(), nullptr, 0, nullptr, products.workspace_bytes(workers_of({&ctx.threads()}))};
  const Buffer workspace = allocate_host(kernel.workspace_bytes);
  kernel.workspace = workspace.data();
  products.run(kernel);
}
void run(Context& ctx, bool emulated, const LowGradArgs& args) {
  if (emulated)
    run_on<EmulatedTiles>(ctx, amx_emulated_kernels(kernels_for(std::min(isa(), Isa::kAvx512Bf16))), args);
  else
    run_on<HardwareTiles>(ctx, amx_kernels(), args);
}

// rows `gap` apart, with NaN between them
struct Matrix16 {
  int64_t rows, n, stride;
  std::vector<uint16_t> bits;
  Matrix16(PhiloxStream& rng, int64_t rows, int64_t n, int64_t gap)
      : rows(rows), n(n), stride(n + gap), bits(static_cast<size_t>(rows * (n + gap)), 0x7fc0) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < n; ++j)
        bits[static_cast<size_t>(i * stride + j)] = to_bf16(static_cast<float>(rng.normal())).bits;
  }
  double at(int64_t i, int64_t j) const { return to_f32(BF16{bits[static_cast<size_t>(i * stride + j)]}); }
  View view() { return {bits.data(), DType::kBF16, 2, {rows, n}, {stride, 1}}; }
};

std::vector<bool> machines() {
  if (isa() < Isa::kAvx512Bf16) return {};
  return isa() >= Isa::kAmx ? std::vector<bool>{false, true} : std::vector<bool>{true};
}

TEST(LowGrad, equals_sums_in_f64) {
  PhiloxStream rng(1, RngPurpose::kSynthetic);
  Context ctx(std::make_shared<ThreadPool>(2));
  for (const auto [t, n, r] :
       {std::array<int64_t, 3>{1, 1, 1}, {33, 70, 5}, {512, 300, 16}, {100, 256, 17}, {64, 1024, 64}, {31, 544, 40}})
    for (const bool turned : {false, true})
      for (const bool emulated : machines()) {
        Matrix16 m(rng, t, n, 32), w = turned ? Matrix16(rng, r, n, 3) : Matrix16(rng, n, r, 0), v(rng, t, r, 2),
                                   out(rng, t, r, 6);
        std::vector<float> g(static_cast<size_t>(n * r), 0.5f);
        LowGradArgs args;
        args.m = m.view(), args.w = w.view(), args.out = out.view(), args.v = v.view();
        args.w_is_turned = args.g_is_turned = turned;
        args.g =
            turned ? View{g.data(), DType::kF32, 2, {r, n}, {n, 1}} : View{g.data(), DType::kF32, 2, {n, r}, {r, 1}};
        args.alpha = 0.25f;
        run(ctx, emulated, args);
        for (int64_t i = 0; i < t; ++i)
          for (int64_t j = 0; j < r; ++j) {
            double sum = 0;
            for (int64_t c = 0; c < n; ++c) sum += m.at(i, c) * (turned ? w.at(j, c) : w.at(c, j));
            ASSERT_NEAR(out.at(i, j), 0.25 * sum, 0x1p-8 * std::abs(0.25 * sum) + 2e-6 * static_cast<double>(n))
                << t << " " << n << " " << r << " row " << i << " rank " << j << (emulated ? ", emulated" : "");
          }
        for (int64_t c = 0; c < n; ++c)
          for (int64_t j = 0; j < r; ++j) {
            double sum = 0.5;
            for (int64_t i = 0; i < t; ++i) sum += m.at(i, c) * v.at(i, j);
            ASSERT_NEAR(g[static_cast<size_t>(turned ? j * n + c : c * r + j)], sum,
                        2e-6 * static_cast<double>(t) + 1e-5)
                << t << " " << n << " " << r << " column " << c << " rank " << j << (emulated ? ", emulated" : "");
          }
        for (int64_t i = 0; i < t; ++i)
          for (int64_t j = r; j < out.stride; ++j) ASSERT_EQ(out.bits[static_cast<size_t>(i * out.stride + j)], 0x7fc0);
      }
}

TEST(LowGrad, each_half_alone_has_the_same_bits_with_any_number_of_threads) {
  PhiloxStream rng(2, RngPurpose::kSynthetic);
  const int64_t t = 200, n = 800, r = 16;
  Matrix16 m(rng, t, n, 32), w(rng, n, r, 0), v(rng, t, r, 0);
  for (const bool emulated : machines()) {
    std::vector<std::vector<uint16_t>> outs;
    std::vector<std::vector<float>> gs;
    for (const int threads : {1, 3}) {
      Context ctx(std::make_shared<ThreadPool>(threads));
      for (const int which : {3, 1, 2}) {
        Matrix16 out(rng, t, r, 0);
        std::vector<float> g(static_cast<size_t>(n * r));
        LowGradArgs args;
        args.m = m.view();
        if (which & 1) args.w = w.view(), args.out = out.view();
        if (which & 2) args.v = v.view(), args.g = {g.data(), DType::kF32, 2, {n, r}, {r, 1}};
        run(ctx, emulated, args);
        if (which & 1) outs.push_back(out.bits);
        if (which & 2) gs.push_back(g);
      }
    }
    for (const auto& out : outs) EXPECT_EQ(out, outs[0]);
    for (const auto& g : gs) EXPECT_EQ(g, gs[0]);
    // fewer rows: those of out have the same bits
    Context ctx(std::make_shared<ThreadPool>(2));
    Matrix16 part(rng, 7, r, 0);
    LowGradArgs args;
    args.m = m.view(), args.w = w.view(), args.out = part.view();
    args.m.shape[0] = 7;
    run(ctx, emulated, args);
    EXPECT_EQ(0, std::memcmp(part.bits.data(), outs[0].data(), static_cast<size_t>(7 * r * 2)));
  }
}

}  // namespace
}  // namespace pmetal::cpu
