// The fused kernels of a decode step against the ops they stand for, on odd shapes; and rows that do not depend on
// their mates.
#include "backend/cuda/cuda_testing.h"
#include "ops/linear.h"

namespace pmetal::ops {
namespace {

using namespace cuda_testing;

class CudaFused : public Cuda {};

TEST_F(CudaFused, Rows_of_a_product_have_the_bits_they_have_alone) {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{40, 64}, {129, 256}, {1000, 448}, {24, 4096}, {64, 12288}}) {
    const Tensor w = to_device(*gpu, random_tensor(rng, {n, k}, DType::kBF16, 0.1));
    const Tensor x = to_device(*gpu, random_tensor(rng, {16, k}, DType::kBF16));
    std::vector<Tensor> alone;
    for (int64_t r = 0; r < 16; ++r)
      alone.push_back(to_host(*gpu, linear_dense(*gpu, narrow(*gpu, x, 0, r, 1), w, {}, DType::kF32)));
    for (int64_t m : {2, 3, 8, 9, 16}) {
      const Tensor y = to_host(*gpu, linear_dense(*gpu, narrow(*gpu, x, 0, 0, m), w, {}, DType::kF32));
      for (int64_t r = 0; r < m; ++r)
        EXPECT_EQ(std::memcmp(y.data<float>() + r * n, alone[static_cast<size_t>(r)].data<float>(),
                              static_cast<size_t>(n) * 4),
                  0)
            << "row " << r << " of " << m << ", weight [" << n << ", " << k << "]";
    }
  }
}

}  // namespace
}  // namespace pmetal::ops
