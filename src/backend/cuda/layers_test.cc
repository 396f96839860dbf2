// Norms, rope, gated activations, embedding, products, the head's loss and the optimizer on the GPU against the CPU.
#include <span>

#include "backend/cuda/cuda_testing.h"
#include "ops/activation.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/head_loss.h"
#include "ops/linear.h"
#include "ops/lora.h"
#include "ops/lora_group.h"
#include "ops/norm.h"
#include "ops/optim.h"
#include "ops/rope.h"

namespace pmetal::ops {
namespace {

using namespace cuda_testing;
class CudaLayers : public Cuda {
 protected:
  static quant::Weight weight_of(const Tensor& t) {
    quant::Weight w{&quant::format(name_of(t.dtype())), t.dim(0), t.dim(1), {}, 0};
    w.planes.push_back({t.buffer(), t.dtype()});
    return w;
  }
};

TEST_F(CudaLayers, Rms_norm_with_residual_and_gradients) {
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (float offset : {0.f, 1.f})
      for (const Shape& s :
           {Shape{1, 3}, Shape{5, 24}, Shape{33, 128}, Shape{130, 1024}, Shape{3, 777}, Shape{2, 9, 64}}) {
        const Tensor w = random_tensor(rng, {s[-1]}, dtype);
        compare_gradients(
            {random_tensor(rng, s, dtype), w}, s, dtype, tolerance(dtype),
            [&](Context& c, std::vector<Tensor>& in) { return rms_norm(c, in[0], in[1], 1e-6f, offset); });
        compare_gradients({random_tensor(rng, s, dtype), random_tensor(rng, s, dtype), w}, s, dtype, tolerance(dtype),
                          [&](Context& c, std::vector<Tensor>& in) {
                            const SumAndNorm r = add_rms_norm(c, in[0], in[1], in[2], 1e-6f, offset);
                            return add(c, r.sum, r.normed);
                          });
      }
}

// one of each division of a row's packs among threads, rows that blocks share and rows that they walk
TEST_F(CudaLayers, Rms_norm_of_all_widths) {
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (const Shape& s :
         {Shape{3, 8}, Shape{21, 256}, Shape{9, 512}, Shape{9, 760}, Shape{300, 1024}, Shape{5, 1536}, Shape{5, 2040},
          Shape{1100, 2560}, Shape{5, 3072}, Shape{700, 4096}, Shape{5, 5120}, Shape{5, 6144}, Shape{300, 8192},
          Shape{5, 12288}, Shape{3, 16392}, Shape{9000, 64}, Shape{4500, 136}}) {
      SCOPED_TRACE(s.to_string());
      const Tensor w = random_tensor(rng, {s[-1]}, dtype);
      compare_gradients({random_tensor(rng, s, dtype), random_tensor(rng, s, dtype), w}, s, dtype, tolerance(dtype),
                        [&](Context& c, std::vector<Tensor>& in) {
                          const SumAndNorm r = add_rms_norm(c, in[0], in[1], in[2], 1e-6f);
                          return add(c, r.sum, r.normed);
                        });
    }
}

TEST_F(CudaLayers, Rms_norm_of_heads_that_lie_beside_others) {
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (const int64_t d : {64, 24, 5}) {
      const Shape s{7, 3, d};
      compare_gradients({random_tensor(rng, {7, 5 * d}, dtype), random_tensor(rng, {d}, dtype)}, s, dtype,
                        tolerance(dtype), [&](Context& c, std::vector<Tensor>& in) {
                          const Tensor q = split_heads(c, narrow(c, in[0], 1, d, 3 * d), 3);
                          return rms_norm(c, q, in[1], 1e-6f, 0);
                        });
    }
}

// Three linears of one input, one of them without an update, as an attention block uses them: norms of heads in place.
TEST_F(CudaLayers, Lora_of_linears_that_share_an_input) {
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (const auto& [rows, n, room] :
         {std::tuple<int64_t, int64_t, bool>{9, 40, false}, {64, 128, true}, {1, 64, true}}) {
      constexpr int64_t kOut = 48;
      const auto random = [&](Shape shape) { return random_tensor(rng, shape, dtype, 0.3f); };
      const std::vector<Tensor> inputs = {random({rows, n}), random({3 * kOut, n}), random({4, n}), random({kOut, 4}),
                                          random({6, n}),    random({kOut, 6}),     random({16})};
      compare_gradients(inputs, {rows, kOut}, dtype, dtype == DType::kF32 ? 1e-4 : 2e-2,
                        [&, n = n, room = room](Context& c, std::vector<Tensor>& in) {
                          LoraGroup group = empty_lora_group(c, 3 * kOut, n, lora_rank(10), dtype);
                          copy(c, in[1].detached(), group.matrix.narrowed(0, 0, 3 * kOut).narrowed(1, 0, n));
                          group.scale = 0.5f;
                          const LoraPart parts[] = {{kOut, in[2], in[3]}, {kOut, in[4], in[5]}, {kOut, {}, {}}};
                          Tensor ones = c.empty({n}, dtype);
                          fill(c, ones, 1);
                          const Tensor x = rms_norm(c, in[0], ones, 1e-6f, 0, room ? group.rank() : 0);
                          const std::vector<Tensor> y = lora_group(c, x, group, parts);
                          const Tensor q = merge_heads(c, rms_norm(c, split_heads(c, y[0], 3), in[6], 1e-6f, 0));
                          return add(c, add(c, q, y[1]), y[2]);
                        });
    }
}

TEST_F(CudaLayers, Rope_both_pairings_and_partial_heads) {
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (bool interleaved : {false, true})
      for (const auto& [d, half] : {std::pair<int64_t, int64_t>{128, 64}, {24, 8}, {10, 3}}) {
        const Tensor positions = ids_of({0, 5, 17, 4000, 1, 2}), freq = random_tensor(rng, {half}, DType::kF32, 0.01);
        compare_gradients({random_tensor(rng, {6, 3, d}, dtype), positions, freq}, {6, 3, d}, dtype,
                          dtype == DType::kF32 ? 1e-4 : 1e-2, [&](Context& c, std::vector<Tensor>& in) {
                            return rope(c, in[0], rope_table(c, in[1], in[2].detached(), 1.2f), interleaved);
                          });
      }
}

TEST_F(CudaLayers, Gated_activations_and_gradients) {
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (int a = 0; a <= static_cast<int>(Activation::kIdentity); ++a)
      for (const Shape& s : {Shape{3, 5}, Shape{64, 96}, Shape{0, 8}}) {
        const auto act = static_cast<Activation>(a);
        compare_gradients({random_tensor(rng, s, dtype), random_tensor(rng, s, dtype)}, s, dtype, tolerance(dtype),
                          [&](Context& c, std::vector<Tensor>& in) { return glu(c, in[0], in[1], act); });
        compare_gradients({random_tensor(rng, s, dtype)}, s, dtype, tolerance(dtype),
                          [&](Context& c, std::vector<Tensor>& in) { return activate(c, in[0], act); });
      }
}

TEST_F(CudaLayers, Embedding_and_its_ordered_gradient) {
  const Tensor ids = ids_of({4, 0, 4, 2, 4, 10, 3});
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (int64_t n : {1, 64, 130})
      compare_gradients(
          {random_tensor(rng, {11, n}, dtype), ids}, {7, n}, dtype, tolerance(dtype),
          [&](Context& c, std::vector<Tensor>& in) { return embedding_dense(c, in[1], in[0], dtype, 1.5f, 10); });
}

struct ProductShape {
  int64_t m, n, k;
};
const ProductShape kProducts[] = {{1, 1, 1},     {1, 64, 48},     {3, 17, 5},    {8, 40, 256},
                                  {5, 33, 1000}, {9, 128, 64},    {64, 96, 128}, {130, 70, 33},
                                  {2, 8300, 64}, {300, 200, 256}, {7, 24, 4096}, {1, 8200, 136}};

TEST_F(CudaLayers, Linear_with_frozen_and_trainable_weights) {
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (const auto& [m, n, k] : kProducts)
      for (bool with_bias : {false, true}) {
        SCOPED_TRACE(fmt::format("m {} n {} k {} bias {} {}", m, n, k, with_bias, name_of(dtype)));
        const double spread = 1 / std::sqrt(static_cast<double>(k));
        const Tensor x = random_tensor(rng, {m, k}, dtype), w = random_tensor(rng, {n, k}, dtype, spread);
        const Tensor bias = with_bias ? random_tensor(rng, {n}, dtype) : Tensor();
        compare_gradients({x, bias}, {m, n}, dtype, tolerance(dtype), [&](Context& c, std::vector<Tensor>& in) {
          const Tensor there = to_device(c, w);
          return linear(c, in[0], weight_of(there), in[1]);
        });
        compare_gradients({x, w, bias}, {m, n}, dtype, tolerance(dtype),
                          [&](Context& c, std::vector<Tensor>& in) { return linear_dense(c, in[0], in[1], in[2]); });
      }
}

TEST_F(CudaLayers, Linear_gives_f32_rows_from_bf16) {
  for (int64_t m : {1, 6, 40}) {
    const Tensor x = random_tensor(rng, {m, 96}, DType::kBF16), w = random_tensor(rng, {50, 96}, DType::kBF16);
    compare(
        {x, w},
        [](Context& c, std::vector<Tensor>& in) {
          return std::vector<Tensor>{linear(c, in[0], weight_of(in[1]), {}, DType::kF32)};
        },
        1e-5);
  }
}

TEST_F(CudaLayers, Matmul_in_all_orders) {
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (const auto& [m, n, k] : kProducts)
      for (int t = 0; t < 4; ++t) {
        SCOPED_TRACE(fmt::format("m {} n {} k {} transposed {} {}", m, n, k, t, name_of(dtype)));
        const bool ta = t & 1, tb = t & 2;
        const double spread = 1 / std::sqrt(static_cast<double>(k));
        compare_gradients({random_tensor(rng, ta ? Shape{k, m} : Shape{m, k}, dtype),
                           random_tensor(rng, tb ? Shape{n, k} : Shape{k, n}, dtype, spread)},
                          {m, n}, dtype, tolerance(dtype),
                          [&](Context& c, std::vector<Tensor>& in) { return matmul(c, in[0], in[1], ta, tb, 0.5f); });
      }
}

TEST_F(CudaLayers, Lora_update_and_gradients) {
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (int64_t rank : {1, 8, 16})
      compare_gradients({random_tensor(rng, {37, 64}, dtype), random_tensor(rng, {37, 48}, dtype),
                         random_tensor(rng, {rank, 64}, dtype, 0.1), random_tensor(rng, {48, rank}, dtype, 0.1)},
                        {37, 48}, dtype, tolerance(dtype), [](Context& c, std::vector<Tensor>& in) {
                          // `base` is overwritten: a copy per run
                          const Tensor base = affine(c, in[1], 1);
                          return lora(c, in[0], base, in[2], in[3], 2);
                        });
}

// products with a narrow side over rows in numbers, as training has them
TEST_F(CudaLayers, Lora_over_many_rows) {
  struct {
    int64_t rows, in, out, rank;
  } const cases[] = {{256, 64, 64, 16}, {300, 72, 136, 8},  {1030, 328, 40, 16},  {511, 136, 520, 24},
                     {700, 64, 8, 32},  {320, 264, 72, 64}, {2000, 1024, 264, 16}};
  for (const auto& c : cases) {
    SCOPED_TRACE(fmt::format("{} rows, {} -> {}, rank {}", c.rows, c.in, c.out, c.rank));
    compare_gradients(
        {random_tensor(rng, {c.rows, c.in}, DType::kBF16), random_tensor(rng, {c.rows, c.out}, DType::kBF16),
         random_tensor(rng, {c.rank, c.in}, DType::kBF16, 0.1), random_tensor(rng, {c.out, c.rank}, DType::kBF16, 0.1)},
        {c.rows, c.out}, DType::kBF16, tolerance(DType::kBF16),
        [](Context& ctx, std::vector<Tensor>& in) { return lora(ctx, in[0], affine(ctx, in[1], 1), in[2], in[3], 2); });
  }
}

struct HeadShape {
  int64_t rows, vocabulary, width;
};
const HeadShape kHeads[] = {{1, 7, 8}, {13, 333, 32}, {200, 1024, 64}};
const HeadShape kLargeHeads[] = {{3, 30'004, 8}, {2, 65'536, 8}, {3, 151'936, 8}, {2, 200'000, 8}};

class CudaHeadLoss : public CudaLayers {
 protected:
  static HeadLossOptions options(int i) {
    HeadLossOptions o;
    if (i & 1) o.logit_scale = 0.7f;
    if (i & 2) o.softcap = 4;
    if (i & 4) o.z_loss = 1e-3f, o.label_smoothing = 0.1f;
    return o;
  }

  void with_every_option(DType dtype, std::span<const HeadShape> heads) {
    for (const auto& [m, v, n] : heads)
      for (int i = 0; i < cases(8); ++i) {
        SCOPED_TRACE(fmt::format("m {} v {} options {} {}", m, v, i, name_of(dtype)));
        std::vector<int32_t> labels;
        for (int64_t r = 0; r < m; ++r) labels.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(v))));
        const Tensor scale = floats_of(std::vector<float>(static_cast<size_t>(m), 1.f / static_cast<float>(m)), {m});
        const Tensor hidden = random_tensor(rng, {m, n}, dtype), head = random_tensor(rng, {v, n}, dtype, 0.3);
        const double tol = dtype == DType::kF32 ? 1e-4 : 1e-2;
        compare_gradients({hidden, head, ids_of(labels)}, {1}, DType::kF32, tol,
                          [&](Context& c, std::vector<Tensor>& in) {
                            return head_loss(c, in[0], nullptr, in[1], in[2], to_device(c, scale), options(i)).loss;
                          });
        compare(
            {hidden, head, ids_of(labels)},
            [&](Context& c, std::vector<Tensor>& in) {
              const quant::Weight w = weight_of(in[1]);
              const HeadLoss l = head_loss(c, in[0], &w, {}, in[2], to_device(c, scale), options(i));
              return std::vector<Tensor>{l.nll, l.entropy, l.correct};
            },
            1e-3);
      }
  }
};

TEST_F(CudaHeadLoss, Of_f32) { with_every_option(DType::kF32, kHeads); }
TEST_F(CudaHeadLoss, Of_bf16) { with_every_option(DType::kBF16, kHeads); }
// the vocabulary in slices
std::span<const HeadShape> large_heads() {
  return std::span(kLargeHeads).first(static_cast<size_t>(cases(std::size(kLargeHeads))));
}
TEST_F(CudaHeadLoss, Of_f32_and_many_tokens) { with_every_option(DType::kF32, large_heads()); }
TEST_F(CudaHeadLoss, Of_bf16_and_many_tokens) { with_every_option(DType::kBF16, large_heads()); }

TEST_F(CudaLayers, Adamw_and_sum_of_squares) {
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (int64_t n : {1, 5000, 100'003}) {
      const Tensor w = random_tensor(rng, {n}), g = random_tensor(rng, {n}),
                   m = random_tensor(rng, {n}, DType::kF32, 0.1);
      const Tensor v = unary(*cpu, random_tensor(rng, {n}, DType::kF32, 0.1), Unary::kAbs);
      compare(
          {w, g, m, v},
          [&](Context& c, std::vector<Tensor>& in) {
            const Tensor weight = dtype == DType::kF32 ? Tensor() : c.empty({n}, dtype);
            AdamWArgs hyper;
            hyper.lr = 1e-2f, hyper.weight_decay = 0.1f, hyper.grad_scale = 0.5f, hyper.step = 3;
            adamw(c, in[0], in[1], in[2], in[3], weight, hyper);
            return std::vector<Tensor>{in[0], in[2], in[3], weight};
          },
          dtype == DType::kF32 ? 1e-6 : 3e-3);
      const double want = sum_squares(*cpu, g);
      EXPECT_NEAR(sum_squares(*gpu, to_device(*gpu, g)), want, 1e-12 * want);
    }
}

}  // namespace
}  // namespace pmetal::ops
