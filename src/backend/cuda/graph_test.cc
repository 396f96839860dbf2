// Recorded work: replays follow their inputs, its memory stays its own, and what cannot be recorded says so.
#include "ops/graph.h"

#include "backend/cuda/cuda_testing.h"
#include "base/error.h"
#include "ops/linear.h"

namespace pmetal::ops {
namespace {

using namespace cuda_testing;

class CudaGraph : public Cuda {
 protected:
  void SetUp() override {
    Cuda::SetUp();
    if (!IsSkipped() && !can_record(*gpu)) GTEST_SKIP() << "nothing is recorded on " << to_string(gpu->device());
  }
};

TEST_F(CudaGraph, Replays_compute_with_the_inputs_of_the_moment) {
  const Tensor w = random_tensor(rng, {96, 64}, DType::kBF16);
  const Tensor there = to_device(*gpu, w), x = gpu->empty({3, 64}, DType::kBF16);
  const auto compute = [&] { return affine(*gpu, linear_dense(*gpu, x, there), 2, 1); };
  fill(*gpu, x, 1);
  const Tensor first = compute();
  const GraphMemory memory(*gpu);
  Tensor y;
  const Graph graph(memory, [&] { y = compute(); });
  for (int i = 0; i < 5; ++i) {
    const Tensor host = random_tensor(rng, {3, 64}, DType::kBF16);
    upload(*gpu, host, x);
    // blocks that the recorded work uses are nobody else's, however much is asked for
    std::vector<Tensor> others;
    for (int64_t n : {96, 192, 288, 1 << 20}) {
      others.push_back(gpu->empty({n}, DType::kF32));
      fill(*gpu, others.back(), NAN);
    }
    graph.replay();
    const Tensor got = to_host(*gpu, y), want = to_host(*gpu, compute());
    EXPECT_EQ(std::memcmp(got.bytes(), want.bytes(), static_cast<size_t>(got.size_bytes())), 0) << "replay " << i;
  }
}

TEST_F(CudaGraph, Two_share_their_memory_in_turn) {
  const Tensor x = gpu->empty({1000}, DType::kF32);
  const auto compute = [&](double a) { return affine(*gpu, affine(*gpu, x, a, 1), 2, 0); };
  fill(*gpu, x, 0);
  compute(1);
  const GraphMemory memory(*gpu);
  Tensor three, five;
  const Graph first(memory, [&] { three = compute(3); }), second(memory, [&] { five = compute(5); });
  for (int i = 1; i < 4; ++i) {
    fill(*gpu, x, i);
    first.replay();
    EXPECT_EQ(to_host(*gpu, three).data<float>()[999], 2 * (3.f * static_cast<float>(i) + 1));
    second.replay();
    EXPECT_EQ(to_host(*gpu, five).data<float>()[0], 2 * (5.f * static_cast<float>(i) + 1));
  }
}

TEST_F(CudaGraph, Memory_is_given_back) {
  gpu->allocator().release_cached();
  const int64_t before = gpu->allocator().stats().reserved_bytes;
  {
    const Tensor x = gpu->empty({1 << 20}, DType::kF32);
    fill(*gpu, x, 1);
    affine(*gpu, x, 2, 0);
    const GraphMemory memory(*gpu);
    Tensor y;
    const Graph graph(memory, [&] { y = affine(*gpu, x, 2, 0); });
    graph.replay();
    EXPECT_GE(gpu->allocator().stats().reserved_bytes, before + (int64_t{2} << 22));
  }
  gpu->allocator().release_cached();
  EXPECT_EQ(gpu->allocator().stats().reserved_bytes, before);
}

TEST_F(CudaGraph, Copies_and_waiting_are_refused_and_the_device_works_on) {
  const Tensor x = gpu->empty({64}, DType::kF32);
  fill(*gpu, x, 7);
  const GraphMemory memory(*gpu);
  EXPECT_THROW(Graph(memory, [&] { to_host(*gpu, x); }), Error);
  EXPECT_THROW(Graph(memory, [&] { to_device(*gpu, random_tensor(rng, {64})); }), Error);
  EXPECT_THROW(Graph(memory, [&] { synchronize(*gpu); }), Error);
  const Tensor y = affine(*gpu, x, 2, 0);
  EXPECT_EQ(to_host(*gpu, y).data<float>()[63], 14);
}

TEST(Graph, Cpu_records_nothing) {
  Context ctx(std::make_shared<ThreadPool>(1));
  EXPECT_FALSE(can_record(ctx));
  EXPECT_THROW(GraphMemory{ctx}, Error);
}

}  // namespace
}  // namespace pmetal::ops
