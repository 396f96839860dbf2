// The fused kernels of a decode step against the ops they stand for, on odd shapes; and rows that do not depend on
// their mates.
#include "backend/cuda/cuda_testing.h"
#include "ops/kv.h"
#include "ops/linear.h"
#include "ops/linear_group.h"
#include "ops/norm.h"
#include "ops/norm_rope.h"
#include "ops/rope_append.h"

namespace pmetal::ops {
namespace {

using namespace cuda_testing;

class CudaFused : public Cuda {
 protected:
  static quant::Weight weight_of(const Tensor& t) {
    quant::Weight w{&quant::format(name_of(t.dtype())), t.dim(0), t.dim(1), {}, 0};
    w.planes.push_back({t.buffer(), t.dtype()});
    return w;
  }
  // The GPU's fused kernel, which must take what these tests give it; the CPU, which may have such kernels too, runs
  // the ops that it stands for.
  static bool runs_fused(const Context& ctx) { return ctx.device().is_cuda(); }
  static constexpr float kEps = 1e-5f;
};

struct GroupShape {
  int64_t m, k;
  std::vector<int64_t> out;
};
const GroupShape kGroups[] = {{1, 64, {8}},         {1, 1024, {48, 24, 24}}, {3, 128, {33, 7, 1}},
                              {4, 4096, {40, 16}},  {2, 256, {9100, 5, 8}},  {4, 456, {64, 64, 64}},
                              {1, 2048, {3000, 8}}, {1, 4104, {5000}}};

TEST_F(CudaFused, Norm_and_a_group_of_products) {
  for (const GroupShape& s : kGroups)
    for (const bool with_norm : {false, true})
      for (const bool with_bias : {false, true}) {
        SCOPED_TRACE(fmt::format("m {} k {} parts {} norm {} bias {}", s.m, s.k, s.out.size(), with_norm, with_bias));
        std::vector<Tensor> host{random_tensor(rng, {s.m, s.k}, DType::kBF16),
                                 random_tensor(rng, {s.k}, with_bias ? DType::kF32 : DType::kBF16)};
        for (int64_t n : s.out) {
          host.push_back(random_tensor(rng, {n, s.k}, DType::kBF16, 1 / std::sqrt(static_cast<double>(s.k))));
          host.push_back(with_bias ? random_tensor(rng, {n}, DType::kBF16) : Tensor());
        }
        compare(
            host,
            [&](Context& ctx, std::vector<Tensor>& in) {
              std::vector<quant::Weight> weights;
              for (size_t i = 2; i < in.size(); i += 2) weights.push_back(weight_of(in[i]));
              std::vector<WeightAndBias> parts;
              for (size_t i = 0; i < weights.size(); ++i) parts.push_back({&weights[i], in[2 * i + 3]});
              std::vector<Tensor> y;
              if (runs_fused(ctx)) {
                y = linear_group(ctx, in[0], {with_norm ? &in[1] : nullptr, kEps}, parts);
                EXPECT_FALSE(y.empty());
                return y;
              }
              const Tensor h = with_norm ? rms_norm(ctx, in[0], in[1], kEps) : in[0];
              for (const WeightAndBias& p : parts) y.push_back(linear(ctx, h, *p.weight, p.bias));
              return y;
            },
            1e-2);
      }
}

TEST_F(CudaFused, Norm_and_a_gated_pair) {
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 3072, 1024},
                                {1, 9, 64},
                                {2, 100, 192},
                                {3, 64, 2560},
                                {1, 12288, 1032},
                                {4, 72, 128},
                                {2, 5000, 1024}})
    for (const Activation act : {Activation::kSilu, Activation::kGeluTanh}) {
      SCOPED_TRACE(fmt::format("m {} n {} k {}", m, n, k));
      const double spread = 1 / std::sqrt(static_cast<double>(k));
      compare(
          {random_tensor(rng, {m, k}, DType::kBF16), random_tensor(rng, {k}, DType::kBF16),
           random_tensor(rng, {n, k}, DType::kBF16, spread), random_tensor(rng, {n, k}, DType::kBF16, spread)},
          [&](Context& ctx, std::vector<Tensor>& in) {
            const quant::Weight gate = weight_of(in[2]), up = weight_of(in[3]);
            if (runs_fused(ctx)) {
              const Tensor y = linear_glu(ctx, in[0], {&in[1], kEps}, {&gate, {}}, {&up, {}}, act);
              EXPECT_TRUE(y.defined());
              return std::vector<Tensor>{y};
            }
            const Tensor h = rms_norm(ctx, in[0], in[1], kEps);
            return std::vector<Tensor>{glu(ctx, linear(ctx, h, gate), linear(ctx, h, up), act)};
          },
          1.5e-2);
    }
}

TEST_F(CudaFused, Product_onto_the_residual) {
  for (const auto& [m, n, k] :
       {std::array<int64_t, 3>{1, 1024, 3072}, {4, 17, 64}, {2, 256, 12288}, {1, 40, 512}, {3, 4096, 128}})
    compare(
        {random_tensor(rng, {m, k}, DType::kBF16),
         random_tensor(rng, {n, k}, DType::kBF16, 1 / std::sqrt(static_cast<double>(k))),
         random_tensor(rng, {m, n}, DType::kBF16)},
        [&](Context& ctx, std::vector<Tensor>& in) {
          const quant::Weight w = weight_of(in[1]);
          if (runs_fused(ctx)) {
            const Tensor y = linear_add(ctx, in[0], {&w, {}}, in[2]);
            EXPECT_TRUE(y.defined());
            return std::vector<Tensor>{y};
          }
          return std::vector<Tensor>{add(ctx, in[2], linear(ctx, in[0], w))};
        },
        1e-2);
}

TEST_F(CudaFused, Head_norms_rope_and_append) {
  for (const int64_t d : {64, 128, 80, 256})
    for (const bool with_norms : {false, true})
      for (const int64_t tokens : {1, 7, 130}) {
        SCOPED_TRACE(fmt::format("d {} norms {} tokens {}", d, with_norms, tokens));
        const int64_t q_heads = 6, kv_heads = 2, pages = 4;
        std::vector<int32_t> positions;
        std::vector<int64_t> slots;
        for (int64_t t = 0; t < tokens; ++t) {
          positions.push_back(static_cast<int32_t>(rng.below(5000)));
          slots.push_back(t % 5 == 3 ? -1 : (t * 37) % (pages * 64));
        }
        // q, k and v as columns of one product
        compare(
            {random_tensor(rng, {tokens, q_heads + 2 * kv_heads, d}, DType::kBF16),
             with_norms ? random_tensor(rng, {d}, DType::kBF16) : Tensor(),
             with_norms ? random_tensor(rng, {d}, DType::kF32) : Tensor(), ids_of(positions),
             random_tensor(rng, {d / 2}, DType::kF32, 0.01), tensor_of(slots, {tokens}, DType::kI64)},
            [&](Context& ctx, std::vector<Tensor>& in) {
              const Tensor k_pages = ctx.empty({pages, kv_heads, 64, d}, DType::kBF16),
                           v_pages = ctx.empty({pages, kv_heads, 64, d}, DType::kBF16);
              fill(ctx, k_pages, 3);
              fill(ctx, v_pages, 3);
              Tensor q = in[0].narrowed(1, 0, q_heads), k = in[0].narrowed(1, q_heads, kv_heads);
              const Tensor v = in[0].narrowed(1, q_heads + kv_heads, kv_heads);
              const RopeTable table = rope_table(ctx, in[3], in[4], 1.1f);
              if (ctx.device().is_cuda()) {  // the CPU has a kernel of its own for it: here it runs the ops
                const Tensor turned = rope_append(ctx, q, k, v, {in[1], in[2], kEps}, table, k_pages, v_pages, in[5]);
                EXPECT_TRUE(turned.defined());
                if (turned) return std::vector<Tensor>{turned, k_pages, v_pages};
              }
              if (with_norms) {
                q = rms_norm(ctx, q, in[1], kEps);
                k = rms_norm(ctx, k, in[2], kEps);
              }
              kv_append(ctx, rope(ctx, k, table), v, k_pages, v_pages, in[5]);
              return std::vector<Tensor>{rope(ctx, q, table), k_pages, v_pages};
            },
            1e-2);
      }
}

// heads that have a kernel and such that do not; q's heads as columns of a product with more behind them
TEST_F(CudaFused, Norms_of_heads_and_rope_while_training) {
  for (const int64_t d : {16, 32, 64, 128, 256, 512, 80})
    for (const auto& [tokens, heads] : {std::pair<int64_t, int64_t>{1, 1}, {7, 3}, {130, 8}, {37, 5}, {700, 16}})
      for (const DType weight : {DType::kBF16, DType::kF32}) {
        SCOPED_TRACE(fmt::format("d {} tokens {} heads {}", d, tokens, heads));
        std::vector<int32_t> positions;
        for (int64_t t = 0; t < tokens; ++t) positions.push_back(static_cast<int32_t>(rng.below(5000)));
        bool fused = true;
        compare_gradients({random_tensor(rng, {tokens, heads + 2, d}, DType::kBF16), random_tensor(rng, {d}, weight),
                           ids_of(positions), random_tensor(rng, {d / 2}, DType::kF32, 0.01)},
                          {tokens, heads, d}, DType::kBF16, 1e-2, [&](Context& ctx, std::vector<Tensor>& in) {
                            RopeTable table;
                            {
                              TapeScope off(ctx, nullptr);
                              table = rope_table(ctx, in[2], in[3].detached(), 1.1f);
                            }
                            const size_t before = ctx.tape()->size();
                            const Tensor y = norm_rope(ctx, narrow(ctx, in[0], 1, 1, heads), in[1], kEps, table);
                            if (ctx.device().is_cuda()) fused = ctx.tape()->size() == before + 2;  // with narrow
                            return y;
                          });
        if (gpu->device().is_cuda()) EXPECT_EQ(fused, d != 80);
      }
}

TEST_F(CudaFused, Rows_of_a_product_have_the_bits_they_have_alone) {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{40, 64}, {129, 256}, {1000, 448}, {24, 4096}, {64, 12288}}) {
    const Tensor w = to_device(*gpu, random_tensor(rng, {n, k}, DType::kBF16, 0.1));
    const Tensor x = to_device(*gpu, random_tensor(rng, {4, k}, DType::kBF16));
    std::vector<Tensor> alone;
    for (int64_t r = 0; r < 4; ++r)
      alone.push_back(to_host(*gpu, linear_dense(*gpu, narrow(*gpu, x, 0, r, 1), w, {}, DType::kF32)));
    for (int64_t m : {2, 3, 4}) {
      const Tensor y = to_host(*gpu, linear_dense(*gpu, narrow(*gpu, x, 0, 0, m), w, {}, DType::kF32));
      for (int64_t r = 0; r < m; ++r)
        EXPECT_EQ(std::memcmp(y.data<float>() + r * n, alone[static_cast<size_t>(r)].data<float>(),
                              static_cast<size_t>(n) * 4),
                  0)
            << "row " << r << " of " << m << ", weight [" << n << ", " << k << "]";
    }
  }
}

}  // namespace
}  // namespace pmetal::ops
