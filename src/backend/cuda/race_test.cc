// The race of cuBLASLt's algorithms: who may win it, and that products keep their bits whoever does.
#include "backend/cuda/race.h"

#include <array>
#include <span>

#include "backend/cuda/cuda_testing.h"
#include "ops/linear.h"

namespace pmetal::ops {
namespace {

using namespace cuda_testing;

struct Runner {
  int bits;
  float milliseconds;
};

int winner(const std::vector<Runner>& all, std::vector<int>* measured = nullptr) {
  return cuda::fastest_of_equal_bits(
      static_cast<int>(all.size()), [&](int i) { return all[static_cast<size_t>(i)].bits; },
      [&](int i) {
        if (measured) measured->push_back(i);
        return all[static_cast<size_t>(i)].milliseconds;
      });
}

TEST(Race, The_fastest_of_equal_bits_wins) {
  EXPECT_EQ(winner({{7, 3}}), 0);
  EXPECT_EQ(winner({{7, 3}, {7, 2}, {7, 1}, {7, 4}}), 2);
  EXPECT_EQ(winner({{7, 1}, {7, 1}}), 0);  // no reason to change
}

TEST(Race, One_of_other_bits_never_wins_however_fast) {
  std::vector<int> measured;
  EXPECT_EQ(winner({{7, 3}, {8, 0.1f}, {7, 2}, {9, 0.2f}}, &measured), 2);
  EXPECT_EQ(measured, (std::vector<int>{0, 2}));
  EXPECT_EQ(winner({{7, 3}, {8, 0.1f}, {9, 0.1f}}), 0);
}

class CudaRace : public Cuda {};

// Shapes that race: each context races anew, and a winner of a like shape (other rows, the same power of two) is taken
// over only where its bits fit.
TEST_F(CudaRace, Contexts_agree_on_the_bits_of_large_products) {
  const std::array<int64_t, 3> shapes[] = {
      {4096, 1024, 1024}, {4096, 3072, 1056}, {5000, 2048, 3072}, {7936, 512, 4096}, {768, 65'536, 512}};
  for (const auto& [m, n, k] : std::span(shapes).first(static_cast<size_t>(cases(std::size(shapes))))) {
    SCOPED_TRACE(fmt::format("m {} n {} k {}", m, n, k));
    const Tensor x = random_tensor(rng, {m, k}, DType::kBF16), w = random_tensor(rng, {n, k}, DType::kBF16, 0.1);
    Tensor first;
    for (int run = 0; run < 4; ++run) {
      Context ctx = make_context(gpu->device(), cpu->thread_pool());
      const Tensor there = to_device(ctx, x), weight = to_device(ctx, w);
      if (run % 2)  // the race is run by a product of fewer rows
        to_host(ctx, linear_dense(ctx, there.narrowed(0, 0, m - m / 16), weight));
      for (int again = 0; again < 2; ++again) {
        const Tensor y = to_host(ctx, linear_dense(ctx, there, weight));
        if (!first) first = y;
        EXPECT_EQ(std::memcmp(first.bytes(), y.bytes(), static_cast<size_t>(y.size_bytes())), 0)
            << "context " << run << ", product " << again;
      }
    }
  }
}

}  // namespace
}  // namespace pmetal::ops
