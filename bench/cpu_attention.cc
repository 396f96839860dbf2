// Every kernel that takes bf16 causal attention on this CPU, forward and backward, in turns.
//   cpu_attention [--tokens N] [--heads N] [--kv-heads N] [--head-dim N] [--threads N] [--repeat N] [KERNEL...]
// Prints the best, tenth percentile and median of the times in milliseconds and GFLOP/s of the median. FLOPs are those
// of the visible half: two products forward, five backward.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/rng.h"
#include "candidate_turns.h"
#include "ops/attention.h"
#include "ops/device.h"

namespace pmetal::bench {
namespace {

struct Options {
  int64_t tokens = 512, heads = 16, kv_heads = 8, head_dim = 128, repeat = 60;
  int threads = 0;
  std::vector<std::string> kernels;
};

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag[0] != '-') {
      o.kernels.push_back(flag);
      continue;
    }
    if (i + 1 >= argc) std::fprintf(stderr, "%s wants a value\n", flag.c_str()), std::exit(2);
    const int64_t value = std::stoll(argv[++i]);
    if (flag == "--tokens")
      o.tokens = value;
    else if (flag == "--heads")
      o.heads = value;
    else if (flag == "--kv-heads")
      o.kv_heads = value;
    else if (flag == "--head-dim")
      o.head_dim = value;
    else if (flag == "--threads")
      o.threads = static_cast<int>(value);
    else if (flag == "--repeat")
      o.repeat = value;
    else
      std::fprintf(stderr, "unknown flag %s\n", flag.c_str()), std::exit(2);
  }
  return o;
}

int main(int argc, char** argv) {
  const Options o = parse(argc, argv);
  Context ctx = ops::make_context(kCpu, std::make_shared<ThreadPool>(o.threads));
  PhiloxStream rng(1, RngPurpose::kInit);
  const auto draw = [&](const Shape& shape) {
    Tensor t = ctx.empty(shape, DType::kBF16);
    for (int64_t i = 0; i < t.numel(); ++i)
      t.data<BF16>()[i] = to_bf16(static_cast<float>(rng.below(2001)) * 1e-3f - 1);
    return t;
  };
  const auto ids = [&](std::vector<int32_t> values) {
    Tensor t = ctx.empty(Shape{static_cast<int64_t>(values.size())}, DType::kI32);
    std::copy(values.begin(), values.end(), t.data<int32_t>());
    return t;
  };
  const Shape q_shape{o.tokens, o.heads, o.head_dim}, k_shape{o.tokens, o.kv_heads, o.head_dim};
  const Tensor q = draw(q_shape), k = draw(k_shape), v = draw(k_shape), out = draw(q_shape), dout = draw(q_shape),
               dq = draw(q_shape), dk = draw(k_shape), dv = draw(k_shape),
               lse = ctx.empty(Shape{o.tokens, o.heads}, DType::kF32), cu = ids({0, static_cast<int32_t>(o.tokens)}),
               length = ids({static_cast<int32_t>(o.tokens)});
  ops::AttentionArgs f;
  f.q = q.view(), f.k = k.view(), f.v = v.view(), f.out = out.view(), f.lse = lse.view();
  f.cu_q = f.cu_k = cu.view(), f.kv_len = length.view();
  f.scale = 1 / std::sqrt(static_cast<float>(o.head_dim));
  f.max_q = f.max_kv = o.tokens;
  ops::AttentionBackwardArgs b;
  b.forward = f;
  b.dout = dout.view(), b.dq = dq.view(), b.dk = dk.view(), b.dv = dv.view();
  const double product =
      static_cast<double>(o.tokens) * static_cast<double>(o.tokens) * static_cast<double>(o.heads * o.head_dim);
  measure_in_turns(ctx, ops::attention_cpu, f, o.kernels, o.repeat, 2 * product);
  measure_in_turns(ctx, ops::attention_backward_cpu, b, o.kernels, o.repeat, 5 * product);
  return 0;
}

}  // namespace
}  // namespace pmetal::bench

int main(int argc, char** argv) { return pmetal::bench::main(argc, argv); }
