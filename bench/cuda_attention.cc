// Every kernel that takes bf16 causal attention on a GPU, forward and backward, on the shapes of the training and
// prefill rows: time, useful TFLOP/s (4 · d operations for a query and key that meet, forward; 10 · d backward), share
// of the measured 785, and the relative error against the plain kernel on a shorter sequence.
//   cuda_attention [--device cuda:0] [--check] [KERNEL...]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "base/rng.h"
#include "ops/attention.h"
#include "ops/device.h"
#include "ops/elementwise.h"

namespace pmetal {
namespace {

constexpr double kFlopsPerSecond = 785e12;

struct Shape4 {
  const char* name;
  int64_t sequences, length, q_heads, kv_heads, d;
};
constexpr Shape4 kShapes[] = {
    {"train 0.6B 8x2048", 8, 2048, 16, 8, 128}, {"train 8B 8x2048", 8, 2048, 32, 8, 128},
    {"prefill 8B 2048", 1, 2048, 32, 8, 128},   {"prefill 8B 8192", 1, 8192, 32, 8, 128},
    {"d 64 8x2048", 8, 2048, 16, 8, 64},
};
constexpr Shape4 kSmall = {"", 2, 500, 12, 4, 128};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Problem {
  Tensor q, k, v, dout, out, lse, dq, dk, dv, cu, lengths;
  ops::AttentionArgs forward;
  ops::AttentionBackwardArgs backward;

  Problem(Context& ctx, const Shape4& s) {
    PhiloxStream rng(5, RngPurpose::kSynthetic);
    const int64_t rows = s.sequences * s.length;
    const auto random = [&](const Shape& shape) {
      std::vector<float> values(static_cast<size_t>(shape.numel()));
      for (float& x : values) x = static_cast<float>(rng.uniform() * 2 - 1) * 1.7f;
      return ops::cast(ctx, ops::to_device(ctx, host_tensor<float>(values, shape, DType::kF32)), DType::kBF16);
    };
    q = random({rows, s.q_heads, s.d}), dout = random({rows, s.q_heads, s.d});
    k = random({rows, s.kv_heads, s.d}), v = random({rows, s.kv_heads, s.d});
    out = ctx.empty(q.shape(), DType::kBF16), dq = ctx.empty(q.shape(), DType::kBF16);
    dk = ctx.empty(k.shape(), DType::kBF16), dv = ctx.empty(v.shape(), DType::kBF16);
    lse = ctx.empty({rows, s.q_heads}, DType::kF32);
    std::vector<int32_t> borders, each(static_cast<size_t>(s.sequences), static_cast<int32_t>(s.length));
    for (int64_t i = 0; i <= s.sequences; ++i) borders.push_back(static_cast<int32_t>(i * s.length));
    cu = ops::to_device(ctx, host_tensor<int32_t>(borders, Shape{s.sequences + 1}, DType::kI32));
    lengths = ops::to_device(ctx, host_tensor<int32_t>(each, Shape{s.sequences}, DType::kI32));
    forward.q = q.view(), forward.k = k.view(), forward.v = v.view();
    forward.out = out.view(), forward.lse = lse.view();
    forward.cu_q = forward.cu_k = cu.view(), forward.kv_len = lengths.view();
    forward.scale = 1 / std::sqrt(static_cast<float>(s.d));
    forward.max_q = forward.max_kv = s.length;
    backward.forward = forward;
    backward.dout = dout.view(), backward.dq = dq.view(), backward.dk = dk.view(), backward.dv = dv.view();
  }
};

template <class Args>
struct Runner {
  Context& ctx;
  const Candidate<Args>& candidate;
  const Args& args;
  KernelContext kernel{&ctx.threads(), ctx.stream(), ctx.device().index, nullptr, 0};
  Buffer workspace{};
  const char* declines() const { return candidate.decline ? candidate.decline(args, kernel) : nullptr; }
  void prepare() {
    if (!candidate.workspace) return;
    kernel.workspace_bytes = candidate.workspace(args, kernel);
    if (kernel.workspace_bytes <= 0) return;
    workspace = ctx.allocator().allocate(kernel.workspace_bytes);
    kernel.workspace = workspace.data();
  }
  void run() { candidate.run(args, kernel); }
  // seconds of one launch, sorted: ten at a time between two waits
  std::vector<double> time() {
    constexpr int kTogether = 10, kTimes = 7;
    prepare();
    for (int i = 0; i < 3; ++i) run();
    ops::synchronize(ctx);
    std::vector<double> seconds;
    for (int t = 0; t < kTimes; ++t) {
      const double start = now();
      for (int i = 0; i < kTogether; ++i) run();
      ops::synchronize(ctx);
      seconds.push_back((now() - start) / kTogether);
    }
    std::sort(seconds.begin(), seconds.end());
    return seconds;
  }
};

std::vector<float> values_of(Context& ctx, const Tensor& t) {
  const Tensor host = ops::to_host(ctx, ops::cast(ctx, t, DType::kF32));
  return {host.data<float>(), host.data<float>() + host.numel()};
}

double error(const std::vector<float>& got, const std::vector<float>& want) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double d = static_cast<double>(got[i]) - static_cast<double>(want[i]);
    difference += d * d;
    size += static_cast<double>(want[i]) * static_cast<double>(want[i]);
  }
  return std::sqrt(difference / std::max(size, 1e-30));
}

// the outputs of a kernel, NaN before it wrote them; twice, to see whether the bits stay
template <class Args>
std::vector<std::vector<float>> outputs(Context& ctx, const Candidate<Args>& candidate, const Args& args,
                                        const std::vector<Tensor>& out, bool& steady) {
  Runner<Args> runner{ctx, candidate, args};
  runner.prepare();
  std::vector<std::vector<float>> all;
  for (int time = 0; time < 2; ++time) {
    for (const Tensor& t : out) ops::fill(ctx, t, NAN);
    runner.run();
    for (size_t i = 0; i < out.size(); ++i) {
      std::vector<float> values = values_of(ctx, out[i]);
      if (time == 0)
        all.push_back(std::move(values));
      else
        steady &= std::memcmp(values.data(), all[i].data(), values.size() * 4) == 0;
    }
  }
  return all;
}

template <class Args>
void check(Context& ctx, const KernelList<Args>& list, const Args& args, const std::vector<Tensor>& out,
           const std::vector<std::string>& wanted) {
  bool steady = true;
  const auto want = outputs(ctx, list.candidates.back(), args, out, steady);
  for (const Candidate<Args>& c : list.candidates.first(list.candidates.size() - 1)) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), c.name) == wanted.end()) continue;
    std::printf("%-20s %-14s", list.op, c.name);
    if (const char* why = Runner<Args>{ctx, c, args}.declines()) {
      std::printf(" declines: %s\n", why);
      continue;
    }
    steady = true;
    const auto got = outputs(ctx, c, args, out, steady);
    for (size_t i = 0; i < got.size(); ++i) std::printf("  error %.2e", error(got[i], want[i]));
    std::printf("  %s\n", steady ? "same bits" : "BITS CHANGE");
  }
}

template <class Args>
void measure(Context& ctx, const KernelList<Args>& list, const Args& args, const Shape4& s, double operations,
             const std::vector<std::string>& wanted) {
  // pairs of a causal mask
  const double pairs = 0.5 * static_cast<double>(s.length) * static_cast<double>(s.length + 1);
  const double flops = operations * static_cast<double>(s.sequences * s.q_heads * s.d) * pairs;
  for (const Candidate<Args>& c : list.candidates.first(list.candidates.size() - 1)) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), c.name) == wanted.end()) continue;
    Runner<Args> runner{ctx, c, args};
    if (runner.declines()) continue;
    const std::vector<double> t = runner.time();
    const double median = t[t.size() / 2];
    std::printf("%-18s %-20s %-14s %8.3f ms (%.3f .. %.3f)  %6.1f TFLOP/s  %4.1f %%\n", s.name, list.op, c.name,
                1e3 * median, 1e3 * t.front(), 1e3 * t.back(), flops / median * 1e-12,
                100 * flops / median / kFlopsPerSecond);
    std::fflush(stdout);
  }
}

int run(int argc, char** argv) {
  std::string device = "cuda";
  bool only_check = false;
  std::vector<std::string> wanted;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--device" && i + 1 < argc)
      device = argv[++i];
    else if (arg == "--check")
      only_check = true;
    else
      wanted.push_back(arg);
  }
  Context ctx = ops::make_context(parse_device(device), std::make_shared<ThreadPool>(0));
  {
    Problem p(ctx, kSmall);
    check(ctx, ops::attention_cuda, p.forward, {p.out, p.lse}, wanted);
    check(ctx, ops::attention_backward_cuda, p.backward, {p.dq, p.dk, p.dv}, wanted);
  }
  if (only_check) return 0;
  for (const Shape4& s : kShapes) {
    Problem p(ctx, s);
    measure(ctx, ops::attention_cuda, p.forward, s, 4, wanted);
    if (s.sequences > 1) measure(ctx, ops::attention_backward_cuda, p.backward, s, 10, wanted);
  }
  return 0;
}

}  // namespace
}  // namespace pmetal

int main(int argc, char** argv) {
  try {
    return pmetal::run(argc, argv);
  } catch (const pmetal::Error& e) {
    std::fprintf(stderr, "cuda_attention: %s\n", e.what());
    return 1;
  }
}
