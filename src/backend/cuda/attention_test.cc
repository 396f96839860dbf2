// attention on the GPU against the CPU over drawn configurations: both kernels, all masks, pages and rows, gradients.
#include "ops/attention.h"

#include <algorithm>
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

// A case's tensors on a device, and the kernels' arguments over them.
struct Kernels {
  Tensor q, k, v, sinks, dout, out, lse, dq, dk, dv, cu_q, kv_len, cu_k;
  AttentionArgs forward;
  AttentionBackwardArgs backward;
  Kernels(Context& ctx, PhiloxStream& rng, const Case& c) {
    const auto random = [&](const Shape& shape) { return to_device(ctx, random_tensor(rng, shape, c.dtype)); };
    const int64_t q_heads = c.kv_heads * c.group;
    q = random({c.q_rows(), q_heads, c.d_k}), dout = random({c.q_rows(), q_heads, c.d_v});
    k = random({c.k_rows(), c.kv_heads, c.d_k}), v = random({c.k_rows(), c.kv_heads, c.d_v});
    if (c.sinks) sinks = random({q_heads}), forward.sinks = sinks.view();
    out = ctx.empty(dout.shape(), c.dtype), lse = ctx.empty({c.q_rows(), q_heads}, DType::kF32);
    dq = ctx.empty(q.shape(), c.dtype), dk = ctx.empty(k.shape(), c.dtype), dv = ctx.empty(v.shape(), c.dtype);
    cu_q = to_device(ctx, ids_of(borders(c.queries))), cu_k = to_device(ctx, ids_of(borders(c.keys)));
    kv_len = to_device(ctx, ids_of(c.keys));
    forward.q = q.view(), forward.k = k.view(), forward.v = v.view(), forward.out = out.view();
    forward.lse = lse.view(), forward.cu_q = cu_q.view(), forward.cu_k = cu_k.view(), forward.kv_len = kv_len.view();
    forward.mask = c.options.mask, forward.scale = c.options.scale, forward.softcap = c.options.softcap;
    forward.max_q = *std::max_element(c.queries.begin(), c.queries.end());
    forward.max_kv = *std::max_element(c.keys.begin(), c.keys.end());
    backward.forward = forward;
    backward.dout = dout.view(), backward.dq = dq.view(), backward.dk = dk.view(), backward.dv = dv.view();
  }
};

// what a kernel writes into outputs that held NaN; nothing: it declines
template <class Candidate, class Args>
std::vector<std::vector<double>> results_of(Context& ctx, const Candidate& candidate, const Args& args,
                                            const std::vector<Tensor>& outputs) {
  std::vector<std::vector<double>> all;
  for (const Tensor& o : outputs) fill(ctx, o, NAN);
  if (!run_candidate(ctx, candidate, args)) return all;
  for (const Tensor& o : outputs) all.push_back(values_of(to_host(ctx, o)));
  return all;
}

// Each list's candidates against its last one, which the tests above hold against the CPU where it is taken.
TEST_F(CudaAttention, Every_kernel_equals_the_plain_one) {
  if (!gpu->device().is_cuda()) return;
  int forward = 0, backward = 0;
  for (int i = 0; i < cases(60); ++i) {
    Case c = draw(rng, i % 4 == 0, i % 2 == 1);
    c.dtype = DType::kBF16;
    // a row that sees one key has a gradient of zero but for rounding
    const int64_t fewest = *std::min_element(c.queries.begin(), c.queries.end());
    const AttentionMask& mask = c.options.mask;
    if (c.q_rows() == 0 || (fewest < 16 && i % 4) || (mask.window && mask.window < 16) ||
        (mask.chunk && (mask.chunk < 16 || i % 4 == 0)) || *std::min_element(c.keys.begin(), c.keys.end()) < 16)
      continue;
    SCOPED_TRACE(c.text());
    Kernels t(*gpu, rng, c);
    const auto compare_lists = [&](const auto& list, const auto& args, const std::vector<Tensor>& outputs, int& n) {
      const auto want = results_of(*gpu, list.candidates.back(), args, outputs);
      for (const auto& candidate : list.candidates.first(list.candidates.size() - 1)) {
        const auto got = results_of(*gpu, candidate, args, outputs);
        n += got.empty() ? 0 : 1;
        for (size_t o = 0; o < got.size(); ++o)
          EXPECT_LE(error(got[o], want[o]), 1e-2) << list.op << " " << candidate.name << " output " << o;
      }
    };
    compare_lists(attention_cuda, t.forward, {t.out, t.lse}, forward);
    run_candidate(*gpu, attention_cuda.candidates.back(), t.forward);
    compare_lists(attention_backward_cuda, t.backward, {t.dq, t.dk, t.dv}, backward);
  }
  if (cases(60) < 60) return;  // of few, all may have been passed over
  EXPECT_GT(forward, 0);
  EXPECT_GT(backward, 0);
}

// More tiles than multiprocessors, of many lengths: which block computes which is left to chance, the bits are not.
TEST_F(CudaAttention, Blocks_that_take_what_is_left_give_the_same_bits) {
  if (!gpu->device().is_cuda()) return;
  Case c;
  for (int i = 0; i < 24; ++i) c.queries.push_back(33 + i * 53 % 60);
  if (cases(24) == 24) c.queries[20] = 700;
  c.keys = c.queries;
  c.kv_heads = 8, c.group = 2, c.d_k = c.d_v = 128;
  c.options.scale = 0.1f;
  c.dtype = DType::kBF16, c.sinks = false;
  Kernels t(*gpu, rng, c);
  const auto expect_same = [&](const auto& list, const auto& args, const std::vector<Tensor>& outputs) {
    const auto want = results_of(*gpu, list.candidates.back(), args, outputs);
    for (const auto& candidate : list.candidates.first(list.candidates.size() - 1)) {
      const auto first = results_of(*gpu, candidate, args, outputs);
      for (size_t o = 0; o < first.size(); ++o)
        EXPECT_LE(error(first[o], want[o]), 1e-2) << list.op << " " << candidate.name << " output " << o;
      for (int again = 0; again < cases(5); ++again)
        EXPECT_TRUE(results_of(*gpu, candidate, args, outputs) == first) << list.op << " " << candidate.name;
    }
  };
  expect_same(attention_cuda, t.forward, {t.out, t.lse});
  run_candidate(*gpu, attention_cuda.candidates.back(), t.forward);
  expect_same(attention_backward_cuda, t.backward, {t.dq, t.dk, t.dv});
}

TEST_F(CudaAttention, Nan_reaches_the_rows_that_see_it_and_no_others) {
  Case c;
  c.queries = c.keys = {150};
  c.kv_heads = 2, c.group = 2, c.d_k = c.d_v = 128;
  c.options.scale = 0.1f;
  c.dtype = DType::kBF16, c.sinks = false;
  constexpr int64_t kKey = 70, kQuery = 20;
  std::vector<double> query(static_cast<size_t>(c.q_rows() * 4 * 128)), key(static_cast<size_t>(c.k_rows() * 2 * 128));
  for (double& x : query) x = rng.normal();
  for (double& x : key) x = rng.normal();
  query[kQuery * 4 * 128 + 5] = key[kKey * 2 * 128 + 7] = NAN;
  const Tensor q = converted(tensor_of(query, {c.q_rows(), 4, 128}, DType::kF64), c.dtype),
               k = converted(tensor_of(key, {c.k_rows(), 2, 128}, DType::kF64), c.dtype);
  const AttentionRows rows{to_device(*gpu, ids_of(borders(c.queries))),
                           to_device(*gpu, ids_of(c.keys)),
                           to_device(*gpu, ids_of(borders(c.keys))),
                           {},
                           150,
                           150};
  const Tensor keys = to_device(*gpu, k);
  const Tensor values = to_device(*gpu, random_tensor(rng, k.shape(), c.dtype));
  const std::vector<double> out =
      values_of(to_host(*gpu, attention(*gpu, to_device(*gpu, q), keys, values, rows, c.options)));
  for (int64_t row = 0; row < 150; ++row)
    for (int64_t head = 0; head < 4; ++head) {
      const bool sees = (row >= kKey && head < 2) || (row == kQuery && head == 0);
      EXPECT_EQ(std::isnan(out[static_cast<size_t>((row * 4 + head) * 128)]), sees)
          << "row " << row << " head " << head;
    }
}

}  // namespace
}  // namespace pmetal::ops
