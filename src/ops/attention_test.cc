// attention against a naive f64 reference over seeded random configurations, and its promises on bits.
#include "ops/attention.h"

#include <algorithm>
#include <numeric>

#include "ops/test_support.h"

namespace pmetal::ops {
namespace {

using namespace testing_support;

struct Config {
  std::vector<int32_t> queries, keys;  // per sequence
  int64_t kv_heads, group, d_k, d_v;
  AttentionMask mask;
  float scale, softcap;
  bool sinks;
  DType dtype;
  int64_t q_rows() const { return std::accumulate(queries.begin(), queries.end(), int64_t{0}); }
  int64_t k_rows() const { return std::accumulate(keys.begin(), keys.end(), int64_t{0}); }
  int64_t q_heads() const { return kv_heads * group; }
};

Config draw_config(PhiloxStream& rng) {
  Config c;
  const auto below = [&](uint64_t n) { return static_cast<int32_t>(rng.below(n)); };
  for (int s = 1 + below(3); s > 0; --s) {
    c.queries.push_back(below(4) == 0 ? below(3) : 1 + below(40));
    c.keys.push_back(c.queries.back() + (below(2) ? below(150) : 0));
  }
  const int64_t sizes[] = {1, 3, 8, 16, 33};
  c.kv_heads = 1 + below(3);
  c.group = 1 + below(4);
  c.d_k = sizes[below(5)];
  c.d_v = sizes[below(5)];
  c.mask.kind = below(4) == 0 ? MaskKind::kBidirectional : MaskKind::kCausal;
  if (below(3) == 0) c.mask.window = 1 + below(90);
  if (below(3) == 0) c.mask.chunk = 1 + below(90);
  c.scale = 0.1f + static_cast<float>(rng.uniform());
  c.softcap = below(3) == 0 ? 5.f : 0.f;
  c.sinks = below(3) == 0;
  const DType types[] = {DType::kF32, DType::kF32, DType::kF64, DType::kBF16};
  c.dtype = types[below(4)];
  return c;
}

struct Data {
  Tensor q, k, v, sinks;
};

Data draw_data(PhiloxStream& rng, const Config& c) {
  return {random_tensor(rng, {c.q_rows(), c.q_heads(), c.d_k}, c.dtype),
          random_tensor(rng, {c.k_rows(), c.kv_heads, c.d_k}, c.dtype),
          random_tensor(rng, {c.k_rows(), c.kv_heads, c.d_v}, c.dtype),
          c.sinks ? random_tensor(rng, {c.q_heads()}, c.dtype) : Tensor()};
}

std::vector<int32_t> borders(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> cu{0};
  for (const int32_t n : lengths) cu.push_back(cu.back() + n);
  return cu;
}

AttentionRows rows_of(const Config& c) {
  AttentionRows rows;
  rows.cu_q = ids_of(borders(c.queries));
  rows.kv_len = ids_of(c.keys);
  rows.cu_k = ids_of(borders(c.keys));
  return rows;
}

struct Result {
  Tensor out, lse;
};

Result run(Context& ctx, const Config& c, const Data& data, const AttentionRows& rows) {
  Result r{ctx.empty({data.q.dim(0), c.q_heads(), c.d_v}, c.dtype),
           ctx.empty({data.q.dim(0), c.q_heads()}, c.dtype == DType::kF64 ? DType::kF64 : DType::kF32)};
  AttentionArgs args;
  args.q = data.q.view();
  args.k = data.k.view();
  args.v = data.v.view();
  args.out = r.out.view();
  args.lse = r.lse.view();
  args.cu_q = rows.cu_q.view();
  args.kv_len = rows.kv_len.view();
  if (rows.cu_k) args.cu_k = rows.cu_k.view();
  if (rows.page_table) args.page_table = rows.page_table.view();
  if (data.sinks) args.sinks = data.sinks.view();
  args.mask = c.mask;
  args.scale = c.scale;
  args.softcap = c.softcap;
  dispatch(ctx, attention_cpu, attention_cuda, args);
  return r;
}

// the definition, pair by pair
bool sees(const AttentionMask& mask, int64_t query, int64_t key) {
  if (mask.kind == MaskKind::kCausal && key > query) return false;
  if (mask.window > 0 && (query - key >= mask.window || key - query >= mask.window)) return false;
  return mask.chunk == 0 || query / mask.chunk == key / mask.chunk;
}

void reference(const Config& c, const Data& data, std::vector<double>& out, std::vector<double>& lse) {
  const std::vector<double> q = values_of(data.q), k = values_of(data.k), v = values_of(data.v),
                            sinks = data.sinks ? values_of(data.sinks) : std::vector<double>();
  const std::vector<int32_t> cu_q = borders(c.queries), cu_k = borders(c.keys);
  const auto at = [](const std::vector<double>& t, int64_t row, int64_t head, int64_t heads, int64_t d) {
    return t.data() + (row * heads + head) * d;
  };
  for (size_t s = 0; s < c.queries.size(); ++s)
    for (int64_t i = 0; i < c.queries[s]; ++i)
      for (int64_t h = 0; h < c.q_heads(); ++h) {
        std::vector<double> sum(static_cast<size_t>(c.d_v));
        double total = c.sinks ? std::exp(sinks[static_cast<size_t>(h)]) : 0;
        for (int64_t j = 0; j < c.keys[s]; ++j) {
          if (!sees(c.mask, c.keys[s] - c.queries[s] + i, j)) continue;
          const double* a = at(q, cu_q[s] + i, h, c.q_heads(), c.d_k);
          const double* b = at(k, cu_k[s] + j, h / c.group, c.kv_heads, c.d_k);
          double score = std::inner_product(a, a + c.d_k, b, 0.0) * static_cast<double>(c.scale);
          if (c.softcap > 0) score = c.softcap * std::tanh(score / c.softcap);
          const double p = std::exp(score);
          total += p;
          const double* value = at(v, cu_k[s] + j, h / c.group, c.kv_heads, c.d_v);
          for (int64_t d = 0; d < c.d_v; ++d) sum[static_cast<size_t>(d)] += p * value[d];
        }
        for (const double x : sum) out.push_back(total > 0 ? x / total : 0);
        lse.push_back(std::log(total));
      }
}

// the same keys and values in pages that lie in another order
void paged(PhiloxStream& rng, const Config& c, const Data& data, Data& pages, AttentionRows& rows) {
  int64_t n_pages = 1, most = 1;
  for (const int32_t n : c.keys) {
    n_pages += (n + 63) / 64;
    most = std::max<int64_t>(most, (n + 63) / 64);
  }
  std::vector<int32_t> order(static_cast<size_t>(n_pages));
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
  pages = {data.q, random_tensor(rng, {n_pages, c.kv_heads, 64, c.d_k}, c.dtype, NAN),
           random_tensor(rng, {n_pages, c.kv_heads, 64, c.d_v}, c.dtype, NAN), data.sinks};
  std::vector<int32_t> table(c.keys.size() * static_cast<size_t>(most), -1);
  const int64_t size = size_of(c.dtype);
  const std::vector<int32_t> cu = borders(c.keys);
  size_t next = 0;
  for (size_t s = 0; s < c.keys.size(); ++s)
    for (int64_t j = 0; j < c.keys[s]; ++j) {
      int32_t& page = table[s * static_cast<size_t>(most) + static_cast<size_t>(j / 64)];
      if (j % 64 == 0) page = order[next++];
      for (int64_t h = 0; h < c.kv_heads; ++h)
        for (const auto& [from, to, d] : {std::tuple{data.k, pages.k, c.d_k}, std::tuple{data.v, pages.v, c.d_v}})
          std::memcpy(to.bytes() + (((page * c.kv_heads + h) * 64) + j % 64) * d * size,
                      from.bytes() + ((cu[s] + j) * c.kv_heads + h) * d * size, static_cast<size_t>(d * size));
    }
  rows = rows_of(c);
  rows.cu_k = Tensor();
  rows.page_table = tensor_of(table, {static_cast<int64_t>(c.keys.size()), most}, DType::kI32);
}

TEST(Attention, Equals_the_naive_sum_paged_and_contiguous) {
  PhiloxStream rng(1, RngPurpose::kSynthetic);
  Context ctx = make_context();
  for (int trial = 0; trial < 300; ++trial) {
    SCOPED_TRACE(trial);
    const Config c = draw_config(rng);
    const Data data = draw_data(rng, c);
    const Result got = run(ctx, c, data, rows_of(c));
    std::vector<double> out, lse;
    reference(c, data, out, lse);
    const double tolerance = c.dtype == DType::kF64 ? 1e-12 : c.dtype == DType::kF32 ? 2e-5 : 1e-2;
    if (!out.empty()) {
      EXPECT_LT(relative_error(values_of(got.out), out), tolerance);
    }
    const std::vector<double> got_lse = values_of(got.lse);
    for (size_t i = 0; i < lse.size(); ++i)
      if (std::isinf(lse[i]))
        EXPECT_EQ(got_lse[i], lse[i]);
      else
        EXPECT_NEAR(got_lse[i], lse[i], std::min(tolerance, 1e-4) * std::max(1.0, std::abs(lse[i])));
    Data pages;
    AttentionRows rows;
    paged(rng, c, data, pages, rows);
    const Result from_pages = run(ctx, c, pages, rows);
    EXPECT_TRUE(same_bits(got.out, from_pages.out));
    EXPECT_TRUE(same_bits(got.lse, from_pages.lse));
    if (HasFailure()) return;
  }
}

TEST(Attention, Bits_do_not_depend_on_how_queries_are_cut_on_batch_mates_or_threads) {
  PhiloxStream rng(2, RngPurpose::kSynthetic);
  Context two = make_context(2), one = make_context(1);
  for (int trial = 0; trial < 100; ++trial) {
    SCOPED_TRACE(trial);
    Config c = draw_config(rng);
    c.mask.kind = MaskKind::kCausal;
    const Data data = draw_data(rng, c);
    const Result whole = run(two, c, data, rows_of(c));
    const std::vector<int32_t> cu_q = borders(c.queries), cu_k = borders(c.keys);
    for (size_t s = 0; s < c.queries.size(); ++s) {
      if (c.queries[s] == 0) continue;
      const int64_t cut = static_cast<int64_t>(rng.below(static_cast<uint64_t>(c.queries[s]) + 1));
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, cut}, {cut, c.queries[s]}}) {
        Config part = c;
        part.queries = {static_cast<int32_t>(end - begin)};
        part.keys = {static_cast<int32_t>(c.keys[s] - c.queries[s] + end)};
        const Data piece = {data.q.narrowed(0, cu_q[s] + begin, end - begin), data.k.narrowed(0, cu_k[s], part.keys[0]),
                            data.v.narrowed(0, cu_k[s], part.keys[0]), data.sinks};
        const Result got = run(one, part, piece, rows_of(part));
        EXPECT_TRUE(same_bits(got.out, whole.out.narrowed(0, cu_q[s] + begin, end - begin)));
        EXPECT_TRUE(same_bits(got.lse, whole.lse.narrowed(0, cu_q[s] + begin, end - begin)));
      }
    }
    if (HasFailure()) return;
  }
}

TEST(Attention, Masked_rows_give_zeros_and_minus_infinity) {
  Context ctx = make_context();
  PhiloxStream rng(3, RngPurpose::kSynthetic);
  // a query whose chunk holds no key: bidirectional window of a sequence without keys
  Config c{{2, 1}, {2, 1}, 1, 1, 4, 4, {}, 1, 0, false, DType::kF32};
  const Data data = draw_data(rng, c);
  AttentionRows rows = rows_of(c);
  rows.kv_len = ids_of({0, 1});  // rows at index −2 and −1 see nothing
  const Result got = run(ctx, c, data, rows);
  const std::vector<double> out = values_of(got.out), lse = values_of(got.lse);
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(out[i], 0);
  EXPECT_EQ(lse[0], -INFINITY);
  EXPECT_EQ(lse[1], -INFINITY);
  EXPECT_TRUE(std::isfinite(lse[2]));
}

TEST(Attention, A_NaN_reaches_the_rows_that_see_it_and_no_other) {
  Context ctx = make_context();
  PhiloxStream rng(4, RngPurpose::kSynthetic);
  Config c{{70, 5}, {70, 5}, 1, 2, 8, 8, {}, 1, 0, false, DType::kF32};
  const Data data = draw_data(rng, c);
  data.k.data<float>()[66 * 8] = NAN;           // seen by queries 66 .. 69 of the first sequence
  data.q.data<float>()[(3 * 2 + 1) * 8] = NAN;  // row 3, head 1
  const std::vector<double> out = values_of(run(ctx, c, data, rows_of(c)).out);
  for (int64_t row = 0; row < 75; ++row)
    for (int64_t h = 0; h < 2; ++h)
      EXPECT_EQ(std::isnan(out[static_cast<size_t>((row * 2 + h) * 8)]),
                (row >= 66 && row < 70) || (row == 3 && h == 1))
          << row << " " << h;
}

// long sequences: the derivative along a random direction, f64; and f32 gradients against f64 ones
TEST(Attention, Gradients_of_long_ragged_steps_equal_differences) {
  Context ctx = make_context();
  PhiloxStream rng(5, RngPurpose::kSynthetic);
  for (int trial = 0; trial < 40; ++trial) {
    SCOPED_TRACE(trial);
    Config c = draw_config(rng);
    c.dtype = DType::kF64;
    if (c.q_rows() == 0) continue;
    const Data data = draw_data(rng, c);
    AttentionOptions options{c.mask, c.scale, c.softcap, data.sinks};
    const Tensor seed = random_tensor(rng, {c.q_rows(), c.q_heads(), c.d_v}, DType::kF64);
    const auto gradients = [&](DType dtype) {
      Tape tape = make_tape();
      TapeScope on(ctx, &tape);
      std::vector<Tensor> leaves;
      for (const Tensor* t : {&data.q, &data.k, &data.v, &data.sinks})
        leaves.push_back(*t ? make_leaf(converted(*t, dtype), "x") : Tensor());
      AttentionOptions with = options;
      with.sinks = leaves[3];
      tape.backward(ctx, attention(ctx, leaves[0], leaves[1], leaves[2], rows_of(c), with), converted(seed, dtype));
      std::vector<std::vector<double>> all;
      for (const Tensor& leaf : leaves) all.push_back(leaf ? values_of(leaf.variable()->grad) : std::vector<double>());
      return all;
    };
    const auto exact = gradients(DType::kF64), narrow = gradients(DType::kF32);
    const std::vector<double> weights = values_of(seed);
    const Data direction = draw_data(rng, c);
    double along = 0;
    const auto shifted = [&](double h) {
      Data moved;
      const Tensor* from[] = {&data.q, &data.k, &data.v, &data.sinks};
      const Tensor* by[] = {&direction.q, &direction.k, &direction.v, &direction.sinks};
      Tensor* to[] = {&moved.q, &moved.k, &moved.v, &moved.sinks};
      for (int i = 0; i < 4; ++i) {
        if (!*from[i]) continue;
        *to[i] = converted(*from[i], DType::kF64);
        for (int64_t j = 0; j < from[i]->numel(); ++j) to[i]->data<double>()[j] += h * by[i]->data<double>()[j];
      }
      const std::vector<double> out = values_of(run(ctx, c, moved, rows_of(c)).out);
      return std::inner_product(out.begin(), out.end(), weights.begin(), 0.0);
    };
    const Tensor* by[] = {&direction.q, &direction.k, &direction.v, &direction.sinks};
    for (size_t i = 0; i < 4; ++i) {
      if (exact[i].empty()) continue;
      const std::vector<double> d = values_of(*by[i]);
      along += std::inner_product(d.begin(), d.end(), exact[i].begin(), 0.0);
      // beside terms of size 1, which cancel where a query sees one key alone
      double worst = 0, largest = 1;
      for (size_t j = 0; j < exact[i].size(); ++j) {
        worst = std::max(worst, std::abs(narrow[i][j] - exact[i][j]));
        largest = std::max(largest, std::abs(exact[i][j]));
      }
      EXPECT_LT(worst, 1e-4 * largest) << "input " << i;
    }
    const double numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
    EXPECT_NEAR(along, numeric, 1e-5 * std::max(1.0, std::abs(numeric)));
    if (HasFailure()) return;
  }
}

TEST(Attention, Refuses_what_does_not_fit) {
  Context ctx = make_context();
  PhiloxStream rng(6, RngPurpose::kSynthetic);
  Config c{{2}, {2}, 2, 1, 4, 4, {}, 1, 0, false, DType::kF32};
  const Data data = draw_data(rng, c);
  try {
    attention(ctx, random_tensor(rng, {2, 3, 4}), data.k, data.v, rows_of(c), {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "[attention] 3 query heads, 2 key heads, 2 value heads");
  }
}

}  // namespace
}  // namespace pmetal::ops
