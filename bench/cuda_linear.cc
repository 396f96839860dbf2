// Products of 1 to 16 rows with the weights of a decode step, each way to run them: microseconds / percent of the
// memory's bandwidth. Launches are recorded as a graph over copies of the weight that no cache holds.
//   cuda_linear [ROWS...]      default: 1 2 4 8 16
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "backend/cuda/kernels.h"
#include "backend/cuda/lt.h"
#include "base/rng.h"
#include "ops/device.h"
#include "ops/elementwise.h"
#include "ops/graph.h"
#include "ops/linear.h"

namespace pmetal {
namespace {

constexpr double kBytesPerSecond = 4.25e12;

struct WeightShape {
  const char* name;
  int64_t n, k;
  bool glu = false;
};
constexpr WeightShape kShapes[] = {
    {"0.6B qkv", 4096, 1024},          {"0.6B o", 1024, 2048},   {"0.6B gate+up", 3072, 1024, true},
    {"0.6B down", 1024, 3072},         {"8B qkv", 6144, 4096},   {"8B o", 4096, 4096},
    {"8B gate+up", 12288, 4096, true}, {"8B down", 4096, 12288}, {"8B head", 151936, 4096},
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

Tensor noise(Context& ctx, const Shape& shape, float size) {
  Tensor x = ctx.empty(shape, DType::kBF16);
  std::vector<float> row(1 << 16);
  PhiloxStream rng(5, RngPurpose::kSynthetic);
  for (float& v : row) v = size * static_cast<float>(rng.normal());
  const Tensor part =
      ops::cast(ctx, ops::to_device(ctx, host_tensor<float>(row, Shape{static_cast<int64_t>(row.size())}, DType::kF32)),
                DType::kBF16);
  const Tensor flat = x.reshaped({x.numel()});
  for (int64_t at = 0; at < x.numel(); at += part.numel()) {
    const int64_t n = std::min(part.numel(), x.numel() - at);
    ops::copy(ctx, part.narrowed(0, 0, n), flat.narrowed(0, at, n));
  }
  return x;
}

// seconds of one launch
template <class Launch>
double time_of(Context& ctx, int copies, Launch&& launch) {
  const int launches = std::max(24, 2 * copies);
  for (int i = 0; i < 2; ++i) launch(i % copies);
  ops::synchronize(ctx);
  const ops::GraphMemory memory(ctx);
  const ops::Graph graph(memory, [&] {
    for (int i = 0; i < launches; ++i) launch(i % copies);
  });
  graph.replay();
  ops::synchronize(ctx);
  std::vector<double> all;
  for (int i = 0; i < 12; ++i) {
    const double start = now();
    graph.replay();
    ops::synchronize(ctx);
    all.push_back((now() - start) / launches);
  }
  std::sort(all.begin(), all.end());
  return all[all.size() / 2];
}

void run(const std::vector<int64_t>& rows) {
  Context ctx = ops::make_context({DeviceKind::kCuda, 0}, std::make_shared<ThreadPool>(1));
  auto& stream = *static_cast<cuda::Stream*>(ctx.stream());
  for (const WeightShape& s : kShapes) {
    const int64_t n_rows = s.n * (s.glu ? 2 : 1), bytes = n_rows * s.k * 2;
    const int copies = static_cast<int>(std::clamp<int64_t>((int64_t{400} << 20) / bytes, 2, 32));
    std::vector<Tensor> weights;
    for (int i = 0; i < copies; ++i) weights.push_back(noise(ctx, {n_rows, s.k}, 0.02f));
    const Tensor norm = noise(ctx, {s.k}, 1), residual = noise(ctx, {16, s.n}, 1);
    for (const int64_t m : rows) {
      const Tensor x = noise(ctx, {m, s.k}, 1), y = ctx.empty({m, n_rows}, DType::kBF16);
      std::printf("%-13s m %2ld ", s.name, static_cast<long>(m));
      const auto print = [&](const char* name, double t) {
        std::printf(" %s %.1f/%.0f", name, 1e6 * t, 100 * static_cast<double>(bytes) / t / kBytesPerSecond);
      };
      cuda::GemvLaunch a{};
      a.x = x.bytes(), a.x_stride = s.k, a.m = static_cast<int>(m), a.k = static_cast<int>(s.k);
      a.parts = 1, a.y_dtype = DType::kBF16, a.multiprocessors = stream.multiprocessors(), a.eps = 1e-6f;
      const auto gemv = [&](int copy) {
        const Tensor& w = weights[static_cast<size_t>(copy)];
        cuda::GemvLaunch b = a;
        b.part[0] = {w.bytes(), nullptr, y.bytes(), n_rows, static_cast<int>(n_rows), DType::kBF16};
        if (s.glu) {
          b.glu = true, b.parts = 2;
          b.part[0].n = b.part[1].n = static_cast<int>(s.n);
          b.part[1].w = w.bytes() + s.n * s.k * 2;
        }
        cuda::launch_gemv(stream.handle(), b);
      };
      if (cuda::gemv_accepts(m, s.k)) {
        const auto variant = [&](const char* name, int split, int outputs, int blocks, bool early) {
          a.split = split, a.outputs = outputs, a.blocks = blocks, a.early = early;
          print(name, time_of(ctx, copies, gemv));
        };
        variant("late", 0, 0, 0, false);
        variant("auto", 0, 0, 0, true);
        for (const int split : {1, 2})
          for (const int blocks : {1, 2, 3})
            if (split == 1 || s.n < 8192) variant(fmt::format("s{}b{}", split, blocks).c_str(), split, 1, blocks, true);
        if (!s.glu && n_rows > 4096)
          for (const int blocks : {1, 2, 3}) variant(fmt::format("o2b{}", blocks).c_str(), 1, 2, blocks, true);
        a.norm = norm.bytes(), a.norm_dtype = DType::kBF16;
        variant("norm", 0, 0, 0, true);
        a.norm = nullptr;
      }
      for (const auto& candidate : ops::linear_cuda.candidates) {
        if (std::string_view(candidate.name) == "plain" || std::string_view(candidate.name) == "gemv") continue;
        std::vector<quant::Weight> dense(static_cast<size_t>(copies));
        for (size_t i = 0; i < dense.size(); ++i) {
          dense[i].format = &quant::format("bf16");
          dense[i].out = n_rows, dense[i].in = s.k;
          dense[i].planes.push_back({weights[i].buffer(), DType::kBF16});
        }
        const Tensor workspace = ctx.empty({cuda::kProductWorkspace}, DType::kU8);
        const KernelContext kernel{&ctx.threads(), ctx.stream(), 0, workspace.bytes(), workspace.size_bytes()};
        ops::LinearArgs args;
        args.x = x.view(), args.y = y.view(), args.weight = dense.data();
        if (candidate.decline && candidate.decline(args, kernel)) continue;
        print(candidate.name, time_of(ctx, copies, [&](int copy) {
                args.weight = &dense[static_cast<size_t>(copy)];
                candidate.run(args, kernel);
              }));
      }
      std::printf("\n");
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace pmetal

int main(int argc, char** argv) {
  std::vector<int64_t> rows;
  for (int i = 1; i < argc; ++i) rows.push_back(std::atoi(argv[i]));
  if (rows.empty()) rows = {1, 2, 4, 8, 16};
  try {
    pmetal::run(rows);
  } catch (const pmetal::Error& e) {
    std::fprintf(stderr, "cuda_linear: %s\n", e.what());
    return 1;
  }
}
