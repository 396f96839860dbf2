// For the tests of CUDA kernels: one computation on the CPU and on the GPU, compared. Where no GPU is, the tests say so
// and are skipped.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <functional>

#include "ops/device.h"
#include "ops/test_support.h"

namespace pmetal::cuda_testing {

using namespace pmetal::testing_support;

// inputs on the context's device -> what is compared. With `wants` gradients, see run_with_gradients().
using Body = std::function<std::vector<Tensor>(Context&, std::vector<Tensor>&)>;

class Cuda : public testing::Test {
 protected:
  void SetUp() override {
    // PMETAL_TEST_DEVICE=cpu compares the CPU with itself: a check of the tests where no GPU is
    const char* name = std::getenv("PMETAL_TEST_DEVICE");
    const Device device = name ? parse_device(name) : Device{DeviceKind::kCuda, 0};
    const ops::CudaState state = ops::cuda_state();
    if (device.is_cuda() && state.n_devices == 0) GTEST_SKIP() << "no CUDA device: " << state.reason;
    cpu = std::make_unique<Context>(ops::make_context(kCpu, std::make_shared<ThreadPool>(2)));
    gpu = std::make_unique<Context>(ops::make_context(device, cpu->thread_pool()));
  }

  // NaN in memory that the next allocations are likely to get: an element nobody writes shows
  static void poison(Context& ctx, const std::vector<Tensor>& like) {
    for (const Tensor& t : like)
      if (t.numel() && is_floating(t.dtype())) {
        const Tensor once = ctx.empty(t.shape(), t.dtype()), twice = ctx.empty(t.shape(), t.dtype());
        ops::fill(ctx, once, NAN);
        ops::fill(ctx, twice, NAN);
      }
  }

  std::vector<Tensor> run_on(Context& ctx, const std::vector<Tensor>& host, const Body& body) {
    std::vector<Tensor> inputs, outputs;
    for (const Tensor& t : host)
      inputs.push_back(t.defined() ? ops::to_device(ctx, converted(t, t.dtype())) : Tensor());
    for (const Tensor& t : body(ctx, inputs))
      outputs.push_back(t.defined() ? converted(ops::to_host(ctx, t), t.dtype()) : Tensor());
    return outputs;
  }

  // Largest of the outputs' relative errors in the 2-norm; the GPU's bits must not change from run to run.
  void compare(const std::vector<Tensor>& host, const Body& body, double tolerance) {
    const std::vector<Tensor> want = run_on(*cpu, host, body);
    poison(*gpu, want);
    const std::vector<Tensor> got = run_on(*gpu, host, body), again = run_on(*gpu, host, body);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      if (!want[i].defined()) continue;
      ASSERT_EQ(got[i].shape().to_string(), want[i].shape().to_string()) << "output " << i;
      EXPECT_LE(error(values_of(got[i]), values_of(want[i])), tolerance) << "output " << i;
      EXPECT_EQ(std::memcmp(got[i].bytes(), again[i].bytes(), static_cast<size_t>(got[i].size_bytes())), 0)
          << "the bits of output " << i << " changed from run to run";
    }
  }

  static double error(const std::vector<double>& got, const std::vector<double>& want) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      if (std::isnan(got[i]) && std::isnan(want[i])) continue;
      if (got[i] == want[i]) {  // infinities too
        size += std::isfinite(want[i]) ? want[i] * want[i] : 0;
        continue;
      }
      if (!std::isfinite(got[i]) || !std::isfinite(want[i])) return INFINITY;
      difference += (got[i] - want[i]) * (got[i] - want[i]);
      size += want[i] * want[i];
    }
    return std::sqrt(difference / std::max(size, 1e-12));
  }

  // `forward` maps inputs to one output; compares it and the gradients of the floating inputs under a random seed.
  void compare_gradients(std::vector<Tensor> host, const Shape& output, DType dtype, double tolerance,
                         const std::function<Tensor(Context&, std::vector<Tensor>&)>& forward) {
    PhiloxStream rng(99, RngPurpose::kSynthetic);
    const size_t n = host.size();
    host.push_back(random_tensor(rng, output, dtype));
    compare(
        host,
        [&](Context& ctx, std::vector<Tensor>& in) {
          const Tensor seed = in.back();
          std::vector<Tensor> inputs(in.begin(), in.begin() + static_cast<int64_t>(n));
          for (Tensor& t : inputs)
            if (t.defined() && is_floating(t.dtype())) t.set_variable(std::make_shared<Variable>());
          Tape tape = ops::make_tape();
          Tensor y;
          {
            TapeScope on(ctx, &tape);
            y = forward(ctx, inputs);
          }
          tape.backward(ctx, y, seed);
          std::vector<Tensor> all{y.detached()};
          for (Tensor& t : inputs)
            all.push_back(t.requires_grad() && t.variable()->grad.defined() ? t.variable()->grad : Tensor());
          return all;
        },
        tolerance);
  }

  std::unique_ptr<Context> cpu, gpu;
  PhiloxStream rng{7, RngPurpose::kSynthetic};
};

// Runs one candidate of a list by hand, with workspace of its own; false: it declines.
template <class Args>
bool run_candidate(Context& ctx, const Candidate<Args>& candidate, const Args& args) {
  KernelContext kernel{&ctx.threads(), ctx.stream(), ctx.device().index, nullptr, 0};
  if (candidate.decline && candidate.decline(args, kernel)) return false;
  Buffer workspace;
  if (candidate.workspace) {
    kernel.workspace_bytes = candidate.workspace(args, kernel);
    workspace = ctx.allocator().allocate(kernel.workspace_bytes);
    kernel.workspace = workspace.data();
  }
  candidate.run(args, kernel);
  return true;
}

// Fewer cases under a sanitizer, which makes some kernels thousands of times slower: PMETAL_TEST_CASES.
inline int cases(size_t all) {
  const char* most = std::getenv("PMETAL_TEST_CASES");
  return static_cast<int>(most ? std::min(all, static_cast<size_t>(std::atoi(most))) : all);
}

inline double tolerance(DType dtype) { return dtype == DType::kF32 ? 2e-5 : dtype == DType::kF16 ? 2e-3 : 1e-2; }

}  // namespace pmetal::cuda_testing
