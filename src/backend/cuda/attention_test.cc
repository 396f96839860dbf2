// attention on the GPU against the CPU over drawn configurations: both kernels, all masks, pages and rows, gradients.
#include "ops/attention.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "backend/cuda/cuda_testing.h"
#include "ops/kv.h"

namespace pmetal::ops {
namespace {

using namespace cuda_testing;
class CudaAttention : public Cuda {};

struct Case {
  std::vector<int32_t> queries, keys;  // per sequence
  int64_t kv_heads, group, d_k, d_v;
  AttentionOptions options;
  DType dtype;
  bool sinks;
  int64_t q_rows() const { return std::accumulate(queries.begin(), queries.end(), int64_t{0}); }
  int64_t k_rows() const { return std::accumulate(keys.begin(), keys.end(), int64_t{0}); }
  std::string text() const {
    return fmt::format(
        "{} sequences, {} queries, {} keys, {} x {} heads, d {} {}, {} window {} chunk {} cap {} sinks {} {}",
        queries.size(), q_rows(), k_rows(), kv_heads, group, d_k, d_v,
        options.mask.kind == MaskKind::kCausal ? "causal" : "both", options.mask.window, options.mask.chunk,
        options.softcap, sinks, name_of(dtype));
  }
};

std::vector<int32_t> borders(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> all{0};
  for (int32_t n : lengths) all.push_back(all.back() + n);
  return all;
}

Case draw(PhiloxStream& rng, bool decode, bool training) {
  const auto below = [&](uint64_t n) { return static_cast<int32_t>(rng.below(n)); };
  Case c;
  for (int s = 1 + below(4); s > 0; --s) {
    c.queries.push_back(decode ? 1 : below(4) == 0 ? below(3) : 1 + below(200));
    c.keys.push_back(c.queries.back() + (training ? 0 : below(2) ? below(600) : 0));
  }
  const int64_t sizes[] = {8, 16, 64, 80, 128, 33, 160}, groups[] = {1, 2, 3, 4, 8};
  c.kv_heads = 1 + below(3);
  c.group = groups[below(5)];
  c.d_k = sizes[below(7)];
  c.d_v = below(3) ? c.d_k : sizes[below(7)];
  c.options.mask.kind = below(4) == 0 ? MaskKind::kBidirectional : MaskKind::kCausal;
  if (below(3) == 0) c.options.mask.window = 1 + below(150);
  if (below(4) == 0) c.options.mask.chunk = 1 + below(150);
  c.options.scale = 1 / std::sqrt(static_cast<float>(c.d_k));
  c.options.softcap = below(3) == 0 ? 5.f : 0.f;
  c.sinks = below(3) == 0;
  c.dtype = below(3) == 0 ? DType::kF32 : DType::kBF16;
  return c;
}

// fewer under a sanitizer
int cases(int all) {
  const char* most = std::getenv("PMETAL_ATTENTION_CASES");
  return most ? std::atoi(most) : all;
}

TEST_F(CudaAttention, Forward_over_rows) {
  for (int i = 0; i < cases(60); ++i) {
    const Case c = draw(rng, i % 3 == 0, false);
    SCOPED_TRACE(c.text());
    compare(
        {random_tensor(rng, {c.q_rows(), c.kv_heads * c.group, c.d_k}, c.dtype),
         random_tensor(rng, {c.k_rows(), c.kv_heads, c.d_k}, c.dtype),
         random_tensor(rng, {c.k_rows(), c.kv_heads, c.d_v}, c.dtype),
         c.sinks ? random_tensor(rng, {c.kv_heads * c.group}, c.dtype) : Tensor(), ids_of(borders(c.queries)),
         ids_of(c.keys), ids_of(borders(c.keys))},
        [&](Context& ctx, std::vector<Tensor>& in) {
          AttentionOptions o = c.options;
          o.sinks = in[3];
          const AttentionRows rows{in[4],
                                   in[5],
                                   in[6],
                                   {},
                                   *std::max_element(c.queries.begin(), c.queries.end()),
                                   *std::max_element(c.keys.begin(), c.keys.end())};
          return std::vector<Tensor>{attention(ctx, in[0], in[1], in[2], rows, o)};
        },
        tolerance(c.dtype));
  }
}

TEST_F(CudaAttention, Forward_over_pages_that_kv_append_filled) {
  for (int i = 0; i < cases(60); ++i) {
    const Case c = draw(rng, i % 2 == 0, false);
    SCOPED_TRACE(c.text());
    int32_t pages = 1, most = 1;
    std::vector<std::vector<int32_t>> tables;
    for (int32_t keys : c.keys) {
      tables.push_back({});
      for (int32_t t = 0; t < keys; t += 64) tables.back().push_back(pages++);
      std::reverse(tables.back().begin(), tables.back().end());
      most = std::max(most, static_cast<int32_t>(tables.back().size()));
    }
    std::vector<int32_t> table;
    std::vector<int64_t> slots;
    for (size_t s = 0; s < tables.size(); ++s) {
      for (int32_t t = 0; t < c.keys[s]; ++t)
        slots.push_back(int64_t{tables[s][static_cast<size_t>(t / 64)]} * 64 + t % 64);
      tables[s].resize(static_cast<size_t>(most), 0);
      table.insert(table.end(), tables[s].begin(), tables[s].end());
    }
    const int64_t n = static_cast<int64_t>(c.keys.size());
    compare(
        {random_tensor(rng, {c.q_rows(), c.kv_heads * c.group, c.d_k}, c.dtype),
         random_tensor(rng, {c.k_rows(), c.kv_heads, c.d_k}, c.dtype),
         random_tensor(rng, {c.k_rows(), c.kv_heads, c.d_v}, c.dtype),
         c.sinks ? random_tensor(rng, {c.kv_heads * c.group}, c.dtype) : Tensor(), ids_of(borders(c.queries)),
         ids_of(c.keys), tensor_of(table, {n, most}, DType::kI32), tensor_of(slots, {c.k_rows()}, DType::kI64)},
        [&](Context& ctx, std::vector<Tensor>& in) {
          AttentionOptions o = c.options;
          o.sinks = in[3];
          Tensor k = ctx.empty({pages, c.kv_heads, 64, c.d_k}, c.dtype),
                 v = ctx.empty({pages, c.kv_heads, 64, c.d_v}, c.dtype);
          fill(ctx, k, 100);  // slots nobody wrote must not matter
          fill(ctx, v, 100);
          kv_append(ctx, in[1], in[2], k, v, in[7]);
          const AttentionRows rows{in[4],
                                   in[5],
                                   {},
                                   in[6],
                                   *std::max_element(c.queries.begin(), c.queries.end()),
                                   *std::max_element(c.keys.begin(), c.keys.end())};
          return std::vector<Tensor>{attention(ctx, in[0], k, v, rows, o)};
        },
        tolerance(c.dtype));
  }
}

TEST_F(CudaAttention, Gradients) {
  for (int i = 0; i < cases(50); ++i) {
    const Case c = draw(rng, false, i % 2 == 0);
    if (c.q_rows() == 0) continue;
    SCOPED_TRACE(c.text());
    compare_gradients({random_tensor(rng, {c.q_rows(), c.kv_heads * c.group, c.d_k}, c.dtype),
                       random_tensor(rng, {c.k_rows(), c.kv_heads, c.d_k}, c.dtype),
                       random_tensor(rng, {c.k_rows(), c.kv_heads, c.d_v}, c.dtype),
                       c.sinks ? random_tensor(rng, {c.kv_heads * c.group}, c.dtype) : Tensor(),
                       ids_of(borders(c.queries)), ids_of(c.keys), ids_of(borders(c.keys))},
                      {c.q_rows(), c.kv_heads * c.group, c.d_v}, c.dtype, c.dtype == DType::kF32 ? 1e-4 : 1.5e-2,
                      [&](Context& ctx, std::vector<Tensor>& in) {
                        AttentionOptions o = c.options;
                        o.sinks = in[3];
                        const AttentionRows rows{in[4],
                                                 in[5],
                                                 in[6],
                                                 {},
                                                 *std::max_element(c.queries.begin(), c.queries.end()),
                                                 *std::max_element(c.keys.begin(), c.keys.end())};
                        return attention(ctx, in[0], in[1], in[2], rows, o);
                      });
  }
}

}  // namespace
}  // namespace pmetal::ops
