// Every kernel that takes the loss of a frozen bf16 head on this CPU, with its gradient, in turns.
//   cpu_head_loss [--tokens N] [--hidden N] [--vocabulary N] [--threads N] [--repeat N] [KERNEL...]
// Prints the best, tenth percentile and median of the times in milliseconds and GFLOP/s of the best.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/rng.h"
#include "candidate_turns.h"
#include "ops/device.h"
#include "ops/head_loss.h"
#include "ops/linear.h"

namespace pmetal::bench {
namespace {

struct Options {
  int64_t tokens = 512, hidden = 1024, vocabulary = 151936, repeat = 8;
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
    else if (flag == "--hidden")
      o.hidden = value;
    else if (flag == "--vocabulary")
      o.vocabulary = value;
    else if (flag == "--threads")
      o.threads = static_cast<int>(value);
    else if (flag == "--repeat")
      o.repeat = value;
    else
      std::fprintf(stderr, "unknown flag %s\n", flag.c_str()), std::exit(2);
  }
  return o;
}

void run(const Options& o) {
  Context ctx(std::make_shared<ThreadPool>(o.threads));
  PhiloxStream rng(1, RngPurpose::kSynthetic);
  const quant::Format& format = ops::preferred_format(ctx.device(), quant::format("bf16"));
  quant::Weight w = quant::allocate(format, o.vocabulary, o.hidden);
  std::vector<float> noise(static_cast<size_t>(64 * o.hidden));
  for (float& v : noise) v = 0.02f * static_cast<float>(rng.normal());
  for (int64_t r = 0; r < o.vocabulary; r += 64) format.encode_rows(w, r, std::min(r + 64, o.vocabulary), noise.data());
  const auto values = [&](int64_t n, DType dtype) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float& x : v) x = static_cast<float>(rng.normal());
    Tensor t = ctx.empty({n}, dtype);
    convert(v.data(), DType::kF32, t.bytes(), dtype, n);
    return t;
  };
  std::vector<int32_t> ids(static_cast<size_t>(o.tokens));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(o.vocabulary)));
  const Tensor h = values(o.tokens * o.hidden, DType::kBF16).reshaped({o.tokens, o.hidden});
  const Tensor dh = ctx.empty({o.tokens, o.hidden}, DType::kBF16), scale = values(o.tokens, DType::kF32);
  const Tensor labels = host_tensor<int32_t>(ids, Shape{o.tokens}, DType::kI32);
  const Tensor nll = ctx.empty({o.tokens}, DType::kF32), entropy = ctx.empty({o.tokens}, DType::kF32);
  const Tensor correct = ctx.empty({o.tokens}, DType::kU8);
  ops::HeadLossArgs args;
  args.hidden = h.view(), args.weight = &w, args.labels = labels.view(), args.row_scale = scale.view();
  args.nll = nll.view(), args.entropy = entropy.view(), args.correct = correct.view(), args.dhidden = dh.view();
  measure_in_turns(ctx, ops::head_loss_cpu, args, o.kernels, o.repeat,
                   4.0 * static_cast<double>(o.tokens * o.hidden * o.vocabulary));
}

}  // namespace
}  // namespace pmetal::bench

int main(int argc, char** argv) {
  pmetal::bench::run(pmetal::bench::parse(argc, argv));
  return 0;
}
