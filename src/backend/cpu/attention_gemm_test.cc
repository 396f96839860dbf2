// Attention and its gradient on every level of matrix kernels, emulated tiles included, against the plain kernels: odd
// head sizes, ragged steps, windows and chunks, pages, sequences without queries; and the promise on bits.
#include "backend/cpu/attention_gemm.h"

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "backend/cpu/attention.h"
#include "backend/cpu/attention_amx.h"
#include "backend/cpu/attention_backward_lanes.h"
#include "backend/cpu/attention_strips.h"
#include "backend/cpu/candidate_testing.h"
#include "backend/cpu/gemm/amx_emulated.h"
#include "backend/cpu/gemm/amx_tiles.h"
#include "backend/cpu/gemm/kernels.h"

namespace pmetal::cpu {
namespace {

using namespace testing_support;
using ops::AttentionArgs;
using ops::AttentionBackwardArgs;

// with workspace of its own
template <class Args>
void with_workspace(Context& ctx, const Args& args,
                    int64_t (*bytes)(const GemmKernels&, const Args&, const KernelContext&),
                    void (*run)(const GemmKernels&, const Args&, const KernelContext&), const GemmKernels& kernels) {
  KernelContext kernel{&ctx.threads(), nullptr, 0, nullptr, 0};
  kernel.workspace_bytes = bytes(kernels, args, kernel);
  const Buffer workspace = ctx.allocator().allocate(kernel.workspace_bytes);
  kernel.workspace = workspace.data();
  run(kernels, args, kernel);
}

std::vector<GemmKernels> levels() {
  std::vector<GemmKernels> all;
  for (Isa level : {Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx})
    if (level <= isa()) all.push_back(kernels_for(level));
  if (isa() >= Isa::kAvx2) all.push_back(amx_emulated_kernels(kernels_for(std::min(isa(), Isa::kAvx512))));
  return all;
}

struct Problem {
  Tensor q, k, v, out, lse, dout, dq, dk, dv, cu_q, cu_k, kv_len;
  AttentionArgs forward;
  AttentionBackwardArgs backward;
};

Tensor borders(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> cu{0};
  for (int32_t n : lengths) cu.push_back(cu.back() + n);
  return ids_of(cu);
}

Problem draw(PhiloxStream& rng, DType dtype, std::array<int64_t, 5> sizes = {3, 16, 24, 64, 80}) {
  const auto below = [&](uint64_t n) { return static_cast<int64_t>(rng.below(n)); };
  std::vector<int32_t> queries, keys;
  for (int64_t s = 1 + below(3); s > 0; --s) {
    queries.push_back(static_cast<int32_t>(below(5) == 0 ? 0 : 1 + below(200)));
    keys.push_back(queries.back() + static_cast<int32_t>(below(2) ? below(100) : 0));
  }
  const int64_t kv_heads = 1 + below(2), group = 1 + below(3), d_k = sizes[static_cast<size_t>(below(5))],
                d_v = sizes[static_cast<size_t>(below(5))];
  Problem p;
  p.cu_q = borders(queries), p.cu_k = borders(keys), p.kv_len = ids_of(keys);
  const int64_t m = p.cu_q.data<int32_t>()[queries.size()], n = p.cu_k.data<int32_t>()[keys.size()];
  p.q = random_tensor(rng, {m, kv_heads * group, d_k}, dtype), p.dq = converted(p.q, dtype);
  p.k = random_tensor(rng, {n, kv_heads, d_k}, dtype), p.dk = converted(p.k, dtype);
  p.v = random_tensor(rng, {n, kv_heads, d_v}, dtype), p.dv = converted(p.v, dtype);
  p.out = random_tensor(rng, {m, kv_heads * group, d_v}, dtype), p.dout = random_tensor(rng, p.out.shape(), dtype);
  p.lse = random_tensor(rng, {m, kv_heads * group});
  AttentionArgs& f = p.forward;
  f.q = p.q.view(), f.k = p.k.view(), f.v = p.v.view(), f.out = p.out.view(), f.lse = p.lse.view();
  f.cu_q = p.cu_q.view(), f.cu_k = p.cu_k.view(), f.kv_len = p.kv_len.view();
  f.scale = 1 / std::sqrt(static_cast<float>(d_k));
  f.softcap = below(3) == 0 ? 4.f : 0.f;
  if (below(4) == 0) f.mask.kind = ops::MaskKind::kBidirectional;
  if (below(3) == 0) f.mask.window = 1 + below(90);
  if (below(3) == 0) f.mask.chunk = 1 + below(90);
  p.backward.forward = f;
  p.backward.dout = p.dout.view(), p.backward.dq = p.dq.view(), p.backward.dk = p.dk.view(),
  p.backward.dv = p.dv.view();
  return p;
}

void run_plain(Context& ctx, const Problem& p) {
  run_candidate(ctx, ops::attention_cpu.candidates.back(), p.forward);
  run_candidate(ctx, ops::attention_backward_cpu.candidates.back(), p.backward);
}

// rounding of values of about 1
double worst(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = values_of(a), y = values_of(b);
  double error = 0;
  for (size_t i = 0; i < x.size(); ++i)
    if (x[i] != y[i]) error = std::max(error, std::abs(x[i] - y[i]) / (1 + std::abs(y[i])));
  return error;
}

TEST(Attention_gemm, Every_level_equals_the_plain_kernels) {
  Context ctx = make_context(2);
  for (int seed = 0; seed < 24; ++seed) {
    SCOPED_TRACE(seed);
    PhiloxStream rng(static_cast<uint64_t>(seed), RngPurpose::kInit);
    const DType dtype = seed % 2 ? DType::kBF16 : DType::kF32;
    Problem p = draw(rng, dtype);
    run_plain(ctx, p);
    std::vector<Tensor> expected;
    for (const Tensor* t : {&p.out, &p.lse, &p.dq, &p.dk, &p.dv}) expected.push_back(converted(*t, t->dtype()));
    for (const GemmKernels& level : levels()) {
      SCOPED_TRACE(level.name);
      with_workspace(ctx, p.forward, attention_with_workspace, attention_with, level);
      EXPECT_LT(worst(p.out, expected[0]), dtype == DType::kBF16 ? 1e-2 : 1e-5);
      EXPECT_LT(worst(p.lse, expected[1]), 1e-4);
      // the gradient from the plain results, so that differences do not add up
      ops::copy(ctx, expected[0], p.out);
      ops::copy(ctx, expected[1], p.lse);
      with_workspace(ctx, p.backward, attention_backward_with_workspace, attention_backward_with, level);
      const double limit = dtype == DType::kBF16 ? 4e-2 : 1e-4;  // p and ds are rounded to bf16 here
      EXPECT_LT(worst(p.dq, expected[2]), limit);
      EXPECT_LT(worst(p.dk, expected[3]), limit);
      EXPECT_LT(worst(p.dv, expected[4]), limit);
    }
    if (::testing::Test::HasFailure()) return;
  }
}

// The last rows of a sequence alone, as decode and chunked prefill have them, and other numbers of threads
TEST(Attention_gemm, Bits_do_not_depend_on_cutting_or_threads) {
  Context two = make_context(2), one = make_context(1);
  PhiloxStream rng(5, RngPurpose::kInit);
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (const GemmKernels& level : levels()) {
      SCOPED_TRACE(level.name);
      const int64_t n = 150, heads = 4, d = 40;
      const Tensor q = random_tensor(rng, {n, heads, d}, dtype), k = random_tensor(rng, {n, 2, d}, dtype);
      const Tensor v = random_tensor(rng, {n, 2, d}, dtype), out = converted(q, dtype), part = converted(q, dtype);
      const Tensor all = ids_of({0, static_cast<int32_t>(n)}), length = ids_of({static_cast<int32_t>(n)});
      AttentionArgs args;
      args.q = q.view(), args.k = k.view(), args.v = v.view(), args.out = out.view();
      args.cu_q = args.cu_k = all.view(), args.kv_len = length.view();
      args.scale = 0.2f;
      with_workspace(two, args, attention_with_workspace, attention_with, level);
      for (int64_t first : {0, 63, 100, 149}) {
        const Tensor rest = q.narrowed(0, first, n - first), to = part.narrowed(0, first, n - first);
        const Tensor cu = ids_of({0, static_cast<int32_t>(n - first)});
        args.q = rest.view(), args.out = to.view(), args.cu_q = cu.view();
        with_workspace(one, args, attention_with_workspace, attention_with, level);
        EXPECT_TRUE(same_bits(converted(to, dtype), converted(out.narrowed(0, first, n - first), dtype))) << first;
      }
    }
}

// On the tiles of this machine or on emulated ones
template <class Kernel>
void run_with(Context& ctx, const Kernel& attention, int64_t bytes) {
  KernelContext kernel{&ctx.threads(), nullptr, 0, nullptr, 0};
  kernel.workspace_bytes = bytes;
  const Buffer workspace = ctx.allocator().allocate(kernel.workspace_bytes);
  std::memset(workspace.data(), 0xff, static_cast<size_t>(bytes));  // NaN: nothing may be taken from it
  kernel.workspace = workspace.data();
  attention.run(kernel);
}
template <class Tiles>
void run_on(Context& ctx, const AttentionArgs& args) {
  const AttentionStrips<Tiles> attention(kernels_for(Isa::kAvx512), args, ctx.threads().size());
  run_with(ctx, attention, attention.workspace_bytes());
}
template <class Tiles>
void run_on(Context& ctx, const AttentionBackwardArgs& args) {
  const AttentionBackwardLanes<Tiles> attention(kernels_for(Isa::kAvx512), args);
  run_with(ctx, attention, attention.worker_bytes() * ctx.threads().size());
}
template <class Args>
void run_tiles(Context& ctx, const Args& args, bool emulated) {
  emulated ? run_on<EmulatedTiles>(ctx, args) : run_on<HardwareTiles>(ctx, args);
}
std::vector<bool> tile_kinds() {
  if (isa() == Isa::kAmx) return {false, true};
  return isa() >= Isa::kAvx512Bf16 ? std::vector<bool>{true} : std::vector<bool>{};
}

TEST(Attention_tiles, Equals_the_plain_kernel) {
  Context ctx = make_context(2);
  for (int seed = 0; seed < 24; ++seed) {
    SCOPED_TRACE(seed);
    PhiloxStream rng(static_cast<uint64_t>(seed), RngPurpose::kInit);
    Problem p = draw(rng, DType::kBF16, {32, 64, 96, 128, 160});
    const Tensor sinks = random_tensor(rng, {p.q.dim(1)});
    if (seed % 3 == 0) p.forward.sinks = sinks.view();
    run_candidate(ctx, ops::attention_cpu.candidates.back(), p.forward);
    const Tensor out = converted(p.out, DType::kBF16), lse = converted(p.lse, DType::kF32);
    for (bool emulated : tile_kinds()) {
      ops::fill(ctx, p.out, 7);
      run_tiles(ctx, p.forward, emulated);
      EXPECT_LT(worst(p.out, out), 1e-2) << emulated;
      EXPECT_LT(worst(p.lse, lse), 1e-4) << emulated;
    }
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(Attention_tiles, The_gradient_equals_the_plain_kernel) {
  Context ctx = make_context(2);
  for (int seed = 0; seed < 24; ++seed) {
    SCOPED_TRACE(seed);
    PhiloxStream rng(static_cast<uint64_t>(seed), RngPurpose::kInit);
    const Problem p = draw(rng, DType::kBF16, {32, 64, 96, 128, 160});
    run_plain(ctx, p);
    std::vector<Tensor> expected;
    for (const Tensor* t : {&p.dq, &p.dk, &p.dv}) expected.push_back(converted(*t, DType::kBF16));
    for (bool emulated : tile_kinds()) {
      for (const Tensor* t : {&p.dq, &p.dk, &p.dv}) ops::fill(ctx, *t, 7);
      run_tiles(ctx, p.backward, emulated);
      EXPECT_LT(worst(p.dq, expected[0]), 4e-2) << emulated;  // p and ds are rounded to bf16 here
      EXPECT_LT(worst(p.dk, expected[1]), 4e-2) << emulated;
      EXPECT_LT(worst(p.dv, expected[2]), 4e-2) << emulated;
    }
    if (::testing::Test::HasFailure()) return;
  }
}

// A sequence alone, with one thread, has the gradients that it has beside others
TEST(Attention_tiles, Gradients_do_not_depend_on_batch_mates_or_threads) {
  Context two = make_context(2), one = make_context(1);
  for (bool emulated : tile_kinds())
    for (int seed = 0; seed < 6; ++seed) {
      PhiloxStream rng(static_cast<uint64_t>(seed), RngPurpose::kInit);
      Problem p = draw(rng, DType::kBF16, {32, 64, 64, 96, 32});
      run_plain(two, p);
      run_tiles(two, p.backward, emulated);
      const int32_t *cu_q = p.cu_q.data<int32_t>(), *cu_k = p.cu_k.data<int32_t>();
      for (int64_t s = 0; s < p.kv_len.dim(0); ++s) {
        const int64_t m = cu_q[s + 1] - cu_q[s], n = cu_k[s + 1] - cu_k[s];
        if (m == 0) continue;
        const auto queries = [&](const Tensor& t) { return t.narrowed(0, cu_q[s], m); };
        const auto keys = [&](const Tensor& t) { return t.narrowed(0, cu_k[s], n); };
        const Tensor dq = converted(queries(p.dq), DType::kBF16), dk = converted(keys(p.dk), DType::kBF16),
                     dv = converted(keys(p.dv), DType::kBF16);
        const Tensor q = queries(p.q), k = keys(p.k), v = keys(p.v), out = queries(p.out), lse = queries(p.lse),
                     dout = queries(p.dout), dq_alone = converted(dq, DType::kBF16),
                     dk_alone = converted(dk, DType::kBF16), dv_alone = converted(dv, DType::kBF16),
                     one_q = borders({static_cast<int32_t>(m)}), one_k = borders({static_cast<int32_t>(n)}),
                     length = ids_of({static_cast<int32_t>(n)});
        for (const Tensor* t : {&dq_alone, &dk_alone, &dv_alone}) ops::fill(one, *t, 7);
        AttentionBackwardArgs args = p.backward;
        AttentionArgs& f = args.forward;
        f.q = q.view(), f.k = k.view(), f.v = v.view(), f.out = out.view(), f.lse = lse.view();
        f.cu_q = one_q.view(), f.cu_k = one_k.view(), f.kv_len = length.view();
        args.dout = dout.view(), args.dq = dq_alone.view(), args.dk = dk_alone.view(), args.dv = dv_alone.view();
        run_tiles(one, args, emulated);
        EXPECT_TRUE(same_bits(dq, dq_alone)) << seed << ' ' << s;
        EXPECT_TRUE(same_bits(dk, dk_alone)) << seed << ' ' << s;
        EXPECT_TRUE(same_bits(dv, dv_alone)) << seed << ' ' << s;
      }
    }
}

TEST(Attention_tiles, Values_that_are_not_seen_reach_nobody) {
  Context ctx = make_context(1);
  PhiloxStream rng(7, RngPurpose::kInit);
  const int64_t n = 70, d = 32;
  for (bool emulated : tile_kinds()) {
    const Tensor q = random_tensor(rng, {n, 2, d}, DType::kBF16), k = random_tensor(rng, {n, 1, d}, DType::kBF16);
    const Tensor v = random_tensor(rng, {n, 1, d}, DType::kBF16), out = converted(q, DType::kBF16);
    const Tensor clean = converted(q, DType::kBF16), all = ids_of({0, n}), length = ids_of({n});
    AttentionArgs args;
    args.q = q.view(), args.k = k.view(), args.v = v.view(), args.out = clean.view();
    args.cu_q = args.cu_k = all.view(), args.kv_len = length.view();
    args.scale = 0.2f;
    run_tiles(ctx, args, emulated);
    for (int64_t i = 0; i < d; ++i) v.data<uint16_t>()[40 * d + i] = i % 2 ? 0x7fc0 : 0x7f80;  // NaN, infinity
    args.out = out.view();
    run_tiles(ctx, args, emulated);
    EXPECT_TRUE(
        same_bits(converted(out.narrowed(0, 0, 40), DType::kBF16), converted(clean.narrowed(0, 0, 40), DType::kBF16)));
    for (const double x : values_of(converted(out.narrowed(0, 40, n - 40), DType::kBF16)))
      EXPECT_FALSE(std::isfinite(x));
  }
}

TEST(Attention_tiles, Bits_do_not_depend_on_cutting_or_threads) {
  Context two = make_context(2), one = make_context(1);
  PhiloxStream rng(5, RngPurpose::kInit);
  for (bool emulated : tile_kinds())
    for (const int64_t heads : {2, 6}) {
      const int64_t n = 300, d = 64;
      const Tensor q = random_tensor(rng, {n, heads, d}, DType::kBF16), k = random_tensor(rng, {n, 2, d}, DType::kBF16);
      const Tensor v = random_tensor(rng, {n, 2, d}, DType::kBF16), out = converted(q, DType::kBF16);
      const Tensor part = converted(q, DType::kBF16);
      const Tensor all = ids_of({0, static_cast<int32_t>(n)}), length = ids_of({static_cast<int32_t>(n)});
      AttentionArgs args;
      args.q = q.view(), args.k = k.view(), args.v = v.view(), args.out = out.view();
      args.cu_q = args.cu_k = all.view(), args.kv_len = length.view();
      args.scale = 0.2f;
      args.mask.window = heads == 6 ? 77 : 0;
      run_tiles(two, args, emulated);
      for (int64_t first : {0, 63, 100, 241, 299}) {
        const Tensor rest = q.narrowed(0, first, n - first), to = part.narrowed(0, first, n - first);
        const Tensor cu = ids_of({0, static_cast<int32_t>(n - first)});
        args.q = rest.view(), args.out = to.view(), args.cu_q = cu.view();
        run_tiles(one, args, emulated);
        EXPECT_TRUE(same_bits(converted(to, DType::kBF16), converted(out.narrowed(0, first, n - first), DType::kBF16)))
            << first;
      }
    }
}

// Keys in several spans, of which windows hide some: the last rows of a sequence, as in prefill, a chunk of it and
// decode, whose spans are worked on side by side where there are threads for it; keys in a row or in pages
TEST(Attention_tiles, Spans_equal_the_plain_kernel_and_do_not_change_bits) {
  const int64_t n = 1190, m = 45, d_k = 32, d_v = 64, kv_heads = 2, pages = (n + 63) / 64;
  PhiloxStream rng(11, RngPurpose::kInit);
  const Tensor k = random_tensor(rng, {n, kv_heads, d_k}, DType::kBF16),
               v = random_tensor(rng, {n, kv_heads, d_v}, DType::kBF16);
  const Tensor k_pages = random_tensor(rng, {pages + 1, kv_heads, 64, d_k}, DType::kBF16),
               v_pages = random_tensor(rng, {pages + 1, kv_heads, 64, d_v}, DType::kBF16);
  std::vector<int32_t> table;
  for (int64_t b = 0; b < pages; ++b) table.push_back(static_cast<int32_t>(pages - b));  // backwards, 0 is not used
  for (int64_t j = 0; j < n; ++j)
    for (int64_t h = 0; h < kv_heads; ++h) {
      const int64_t slot = (table[static_cast<size_t>(j / 64)] * kv_heads + h) * 64 + j % 64;
      std::memcpy(k_pages.data<uint16_t>() + slot * d_k, k.data<uint16_t>() + (j * kv_heads + h) * d_k, d_k * 2);
      std::memcpy(v_pages.data<uint16_t>() + slot * d_v, v.data<uint16_t>() + (j * kv_heads + h) * d_v, d_v * 2);
    }
  const Tensor page_table = host_tensor<int32_t>(table, Shape{1, pages}, DType::kI32);
  const Tensor cu_k = ids_of({0, n}), length = ids_of({n});
  for (const int64_t window : {0, 600, 30})
    for (const int64_t heads : {2, 6}) {
      SCOPED_TRACE(testing::Message() << "window " << window << ", heads " << heads);
      const Tensor q = random_tensor(rng, {m, heads, d_k}, DType::kBF16);
      const Tensor want = random_tensor(rng, {m, heads, d_v}, DType::kBF16), lse = random_tensor(rng, {m, heads});
      const Tensor sinks = random_tensor(rng, {heads});
      AttentionArgs args;
      args.k = k.view(), args.v = v.view(), args.cu_k = cu_k.view(), args.kv_len = length.view();
      args.scale = 0.7f, args.softcap = heads == 6 ? 5.f : 0.f;
      args.mask.window = window;
      if (heads == 6) args.sinks = sinks.view();
      args.max_q = m, args.max_kv = n;
      const auto last = [&](int64_t rows, const Tensor& out, const Tensor& sums, const auto& run) {
        const Tensor some = q.narrowed(0, m - rows, rows), cu_q = ids_of({0, static_cast<int32_t>(rows)});
        args.q = some.view(), args.out = out.view(), args.lse = sums.view(), args.cu_q = cu_q.view();
        run();
      };
      Context ctx = make_context(1);
      last(m, want, lse, [&] { run_candidate(ctx, ops::attention_cpu.candidates.back(), args); });
      for (bool emulated : tile_kinds()) {
        const Tensor all = converted(want, DType::kBF16), all_lse = converted(lse, DType::kF32);
        ops::fill(ctx, all, 7);
        last(m, all, all_lse, [&] { run_tiles(ctx, args, emulated); });
        EXPECT_LT(worst(all, want), 1e-2) << emulated;
        EXPECT_LT(worst(all_lse, lse), 1e-4) << emulated;
        for (const int threads : {1, 2, 9})
          for (const int64_t rows : {int64_t{1}, int64_t{2}, int64_t{5}, int64_t{20}, m})
            for (const bool paged : {false, true}) {
              if (emulated && (threads == 2 || rows == 2 || rows == 5 || rows == m || paged)) continue;  // slow
              Context other = make_context(threads);
              const Tensor out = random_tensor(rng, {rows, heads, d_v}, DType::kBF16),
                           sums = random_tensor(rng, {rows, heads});
              if (paged) {
                args.k = k_pages.view(), args.v = v_pages.view(), args.page_table = page_table.view(), args.cu_k = {};
              }
              last(rows, out, sums, [&] { run_tiles(other, args, emulated); });
              args.k = k.view(), args.v = v.view(), args.cu_k = cu_k.view(), args.page_table = {};
              EXPECT_TRUE(same_bits(out, converted(all.narrowed(0, m - rows, rows), DType::kBF16)))
                  << threads << " threads, " << rows << " rows, paged " << paged << ", emulated " << emulated;
              EXPECT_TRUE(same_bits(sums, converted(all_lse.narrowed(0, m - rows, rows), DType::kF32)))
                  << threads << " threads, " << rows << " rows, paged " << paged << ", emulated " << emulated;
            }
      }
    }
}

// The same with one row whose values hold a NaN that an earlier row does not see, few rows and many
TEST(Attention_tiles, Values_that_few_rows_do_not_see_reach_nobody) {
  Context ctx = make_context(1);
  PhiloxStream rng(13, RngPurpose::kInit);
  const int64_t n = 70, d = 32;
  for (const int64_t m : {2, 4})  // rows for vectors and for tiles
    for (bool emulated : tile_kinds()) {
      const Tensor q = random_tensor(rng, {m, 2, d}, DType::kBF16), k = random_tensor(rng, {n, 1, d}, DType::kBF16);
      const Tensor v = random_tensor(rng, {n, 1, d}, DType::kBF16), out = converted(q, DType::kBF16);
      const Tensor clean = converted(q, DType::kBF16), cu_q = ids_of({0, static_cast<int32_t>(m)}),
                   cu_k = ids_of({0, n}), length = ids_of({n});
      AttentionArgs args;
      args.q = q.view(), args.k = k.view(), args.v = v.view(), args.out = clean.view();
      args.cu_q = cu_q.view(), args.cu_k = cu_k.view(), args.kv_len = length.view();
      args.scale = 0.2f;
      run_tiles(ctx, args, emulated);
      for (int64_t i = 0; i < d; ++i)
        v.data<uint16_t>()[(n - m / 2) * d + i] = i % 2 ? 0x7fc0 : 0xff80;  // NaN, -infinity
      args.out = out.view();
      run_tiles(ctx, args, emulated);
      EXPECT_TRUE(same_bits(converted(out.narrowed(0, 0, m / 2), DType::kBF16),
                            converted(clean.narrowed(0, 0, m / 2), DType::kBF16)));
      for (const double x : values_of(converted(out.narrowed(0, m / 2, m / 2), DType::kBF16)))
        EXPECT_FALSE(std::isfinite(x));
    }
}

// Weights and values so small that their products are subnormal, which tiles take for zero: prefill and decode
TEST(Attention_tiles, Bits_of_subnormals_do_not_depend_on_cutting) {
  Context ctx = make_context(1);
  PhiloxStream rng(17, RngPurpose::kInit);
  const int64_t n = 170, d = 64;
  for (bool emulated : tile_kinds()) {
    const Tensor q = random_tensor(rng, {n, 2, d}, DType::kBF16), k = random_tensor(rng, {n, 1, d}, DType::kBF16);
    const Tensor v = random_tensor(rng, {n, 1, d}, DType::kBF16), out = converted(q, DType::kBF16);
    for (int64_t i = 0; i < n * d; ++i)  // 2^-130 to 2^-112 of either sign
      v.data<uint16_t>()[i] = static_cast<uint16_t>(rng.below(2) << 15 | rng.below(16) << 7 | rng.below(128));
    const Tensor cu = ids_of({0, n}), length = ids_of({n});
    AttentionArgs args;
    args.q = q.view(), args.k = k.view(), args.v = v.view(), args.out = out.view();
    args.cu_q = args.cu_k = cu.view(), args.kv_len = length.view();
    args.scale = 3;
    run_tiles(ctx, args, emulated);
    for (const int64_t rows : {1, 2, 6}) {
      const Tensor some = q.narrowed(0, n - rows, rows), part = converted(some, DType::kBF16);
      const Tensor cu_q = ids_of({0, static_cast<int32_t>(rows)});
      args.q = some.view(), args.out = part.view(), args.cu_q = cu_q.view();
      run_tiles(ctx, args, emulated);
      EXPECT_TRUE(same_bits(part, converted(out.narrowed(0, n - rows, rows), DType::kBF16))) << rows << ' ' << emulated;
    }
  }
}

}  // namespace
}  // namespace pmetal::cpu
