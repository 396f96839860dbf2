// All blocks of a step of one token as one kernel against the ops it stands for: lengths around borders of pages and of
// splits, windows, biases, norms of heads, groups of every kind.
#include "ops/decode_blocks.h"

#include <numeric>
#include <span>

#include "backend/cuda/cuda_testing.h"
#include "ops/kv.h"
#include "ops/linear.h"
#include "ops/norm.h"

namespace pmetal::ops {
namespace {

using namespace cuda_testing;

struct Case {
  int64_t hidden, inner, heads, kv_heads, d, layers, keys;
  int64_t window = 0;
  bool biases = false, head_norms = false;
};
const Case kCases[] = {
    {256, 512, 4, 2, 64, 1, 1},
    {256, 256, 2, 2, 128, 2, 64, 0, true},
    {768, 1792, 12, 12, 64, 3, 200, 100, true},
    {1024, 3072, 16, 8, 128, 2, 513, 0, false, true},
    {1024, 3072, 16, 8, 128, 2, 128, 0, false, true},
    {1024, 2048, 8, 1, 128, 1, 3000, 0, false, true},
    {512, 768, 8, 4, 64, 2, 4500, 4097, true, true},
    {1792, 1280, 14, 2, 128, 1, 65, 0, true},
    {1536, 2816, 12, 2, 128, 1, 1100, 0, true},
    {2560, 1280, 32, 8, 128, 1, 70, 0, false, true},
    {4096, 2048, 32, 8, 128, 1, 2000, 0, false, true},
};

class CudaDecodeBlocks : public Cuda {
 protected:
  static quant::Weight weight_of(const Tensor& t) {
    quant::Weight w{&quant::format(name_of(t.dtype())), t.dim(0), t.dim(1), {}, 0};
    w.planes.push_back({t.buffer(), t.dtype()});
    return w;
  }
  // keys and values of earlier tokens; NaN where there are none
  Tensor pages_of(const Case& c, const std::vector<int32_t>& table) {
    const auto pages = static_cast<int64_t>(table.size()) + 2;
    Tensor t = random_tensor(rng, {pages, c.kv_heads, 64, c.d}, DType::kF32);
    std::vector<bool> used(static_cast<size_t>(pages * 64));
    for (int64_t key = 0; key + 1 < c.keys; ++key)
      used[static_cast<size_t>(table[static_cast<size_t>(key / 64)] * 64 + key % 64)] = true;
    for (int64_t i = 0; i < t.numel(); ++i) {
      const int64_t at = i / c.d % 64, page = i / (c.d * 64 * c.kv_heads);
      if (!used[static_cast<size_t>(page * 64 + at)]) t.data<float>()[i] = NAN;
    }
    return converted(t, DType::kBF16);
  }
};

TEST_F(CudaDecodeBlocks, As_the_ops_they_stand_for) {
  for (const Case& c : std::span(kCases).first(static_cast<size_t>(cases(std::size(kCases))))) {
    SCOPED_TRACE(fmt::format("hidden {} inner {} heads {}/{} d {} keys {}", c.hidden, c.inner, c.heads, c.kv_heads, c.d,
                             c.keys));
    const int64_t n_pages = (c.keys + 63) / 64, q = c.heads * c.d, kv = c.kv_heads * c.d;
    std::vector<int32_t> table;
    for (int64_t i = 0; i < n_pages; ++i) table.push_back(static_cast<int32_t>((i * 7 + 3) % n_pages));
    if (n_pages % 7 == 0) std::iota(table.begin(), table.end(), 1);
    const int64_t slot = int64_t{table.back()} * 64 + (c.keys - 1) % 64;
    std::vector<Tensor> host{random_tensor(rng, {1, c.hidden}, DType::kBF16),
                             ids_of({static_cast<int32_t>(c.keys - 1)}),
                             random_tensor(rng, {c.d / 2}, DType::kF32, 0.01),
                             tensor_of(std::vector<int64_t>{slot}, {1}, DType::kI64),
                             ids_of({static_cast<int32_t>(c.keys)}),
                             tensor_of(table, {1, n_pages}, DType::kI32),
                             ids_of({0, 1})};
    const size_t first = host.size();
    const auto weight = [&](int64_t out, int64_t in) {
      host.push_back(random_tensor(rng, {out, in}, DType::kBF16, 1 / std::sqrt(static_cast<double>(in))));
      host.push_back(c.biases ? random_tensor(rng, {out}, DType::kBF16) : Tensor());
    };
    for (int64_t l = 0; l < c.layers; ++l) {
      weight(q, c.hidden), weight(kv, c.hidden), weight(kv, c.hidden), weight(c.hidden, q);
      weight(c.inner, c.hidden), weight(c.inner, c.hidden), weight(c.hidden, c.inner);
      for (const int64_t n : {c.hidden, c.hidden}) host.push_back(random_tensor(rng, {n}, DType::kBF16));
      for (int i = 0; i < 2; ++i) host.push_back(c.head_norms ? random_tensor(rng, {c.d}, DType::kBF16) : Tensor());
      host.push_back(pages_of(c, table));
      host.push_back(pages_of(c, table));
    }
    compare(
        host,
        [&](Context& ctx, std::vector<Tensor>& in) {
          const RopeTable rope = rope_table(ctx, in[1], in[2], 1.f);
          DecodeBlocks m;
          m.heads = c.heads, m.kv_heads = c.kv_heads, m.head_dim = c.d, m.eps = 1e-6f;
          m.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(c.d)));
          std::vector<quant::Weight> weights(static_cast<size_t>(7 * c.layers));
          for (int64_t l = 0; l < c.layers; ++l) {
            const size_t at = first + static_cast<size_t>(20 * l), w = static_cast<size_t>(7 * l);
            for (size_t i = 0; i < 7; ++i) weights[w + i] = weight_of(in[at + 2 * i]);
            const auto part = [&](size_t i) { return WeightAndBias{&weights[w + i], in[at + 2 * i + 1]}; };
            m.blocks.push_back({part(0), part(1), part(2), part(3), part(4), part(5), part(6), in[at + 14], in[at + 15],
                                in[at + 16], in[at + 17], c.window, in[at + 18], in[at + 19]});
          }
          AttentionRows rows;
          rows.cu_q = in[6], rows.kv_len = in[4], rows.page_table = in[5], rows.max_q = 1, rows.max_kv = n_pages * 64;
          Tensor x = decode_blocks(ctx, in[0], m, rope, in[3], rows);
          EXPECT_EQ(x.defined(), ctx.device().is_cuda());
          if (!x.defined()) {
            x = in[0];
            AttentionOptions options;
            options.mask.window = c.window, options.scale = m.scale;
            for (const DecodeBlock& b : m.blocks) {
              const auto product = [&](const WeightAndBias& w, const Tensor& y) {
                return linear(ctx, y, *w.weight, w.bias);
              };
              const Tensor h = rms_norm(ctx, x, b.input_norm, m.eps);
              Tensor qs = reshape(ctx, product(b.q, h), {1, c.heads, c.d}),
                     ks = reshape(ctx, product(b.k, h), {1, c.kv_heads, c.d});
              if (b.q_norm) qs = rms_norm(ctx, qs, b.q_norm, m.eps), ks = rms_norm(ctx, ks, b.k_norm, m.eps);
              kv_append(ctx, pmetal::ops::rope(ctx, ks, rope), reshape(ctx, product(b.v, h), {1, c.kv_heads, c.d}),
                        b.k_pages, b.v_pages, in[3]);
              const Tensor y = attention(ctx, pmetal::ops::rope(ctx, qs, rope), b.k_pages, b.v_pages, rows, options);
              x = add(ctx, x, product(b.o, reshape(ctx, y, {1, q})));
              const Tensor g = rms_norm(ctx, x, b.post_norm, m.eps);
              x = add(ctx, x, product(b.down, glu(ctx, product(b.gate, g), product(b.up, g), m.activation)));
            }
          }
          std::vector<Tensor> all{x};
          for (const DecodeBlock& b : m.blocks) all.push_back(b.k_pages), all.push_back(b.v_pages);
          return all;
        },
        1.5e-2);
  }
}

}  // namespace
}  // namespace pmetal::ops
