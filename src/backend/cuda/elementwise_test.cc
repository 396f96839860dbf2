// The primitive ops on the GPU against the CPU's plain kernels, on odd shapes and strides.
#include "backend/cuda/cuda_testing.h"

namespace pmetal::ops {
namespace {

using namespace cuda_testing;
class CudaElementwise : public Cuda {};

const Shape kShapes[] = {{1}, {7, 13}, {0, 5}, {64, 256}, {3, 5, 8}, {1000, 3}};

TEST_F(CudaElementwise, Unary_functions_and_their_gradients) {
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (const Shape& shape : kShapes)
      for (int op = 0; op <= static_cast<int>(Unary::kReciprocal); ++op) {
        SCOPED_TRACE(fmt::format("op {} {} {}", op, shape.to_string(), name_of(dtype)));
        Tensor x = random_tensor(rng, shape, dtype);
        const bool positive = op == static_cast<int>(Unary::kLog) || op == static_cast<int>(Unary::kSqrt) ||
                              op == static_cast<int>(Unary::kReciprocal);
        if (positive) x = affine(*cpu, unary(*cpu, x, Unary::kAbs), 1, 0.1f);
        compare_gradients({x}, shape, dtype, tolerance(dtype),
                          [&](Context& c, std::vector<Tensor>& in) { return unary(c, in[0], static_cast<Unary>(op)); });
      }
}

TEST_F(CudaElementwise, Strided_copies_casts_and_fills) {
  for (DType from : {DType::kF32, DType::kBF16, DType::kF16, DType::kI32, DType::kF64})
    for (DType to : {DType::kF32, DType::kBF16, DType::kF16, DType::kI64, DType::kU8}) {
      Tensor x = random_tensor(rng, {9, 21}, DType::kF32, 3);
      x = converted(unary(*cpu, x, Unary::kAbs), from);
      compare(
          {x},
          [&](Context& c, std::vector<Tensor>& in) {
            Tensor all = c.empty({9, 32}, to);
            fill(c, all, 2);
            copy(c, in[0].narrowed(1, 3, 12), all.narrowed(1, 5, 12));
            return std::vector<Tensor>{all};
          },
          1e-7);
    }
}

TEST_F(CudaElementwise, Binary_functions_with_and_without_broadcast) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const auto both = [&](auto op, const Shape& a, const Shape& b) {
      compare_gradients({random_tensor(rng, a, dtype), random_tensor(rng, b, dtype)}, a, dtype, tolerance(dtype),
                        [&](Context& c, std::vector<Tensor>& in) { return op(c, in[0], in[1]); });
    };
    for (const Shape& s : kShapes)
      for (auto op : {add, sub, mul, minimum, maximum}) both(op, s, s);
    for (int64_t n : {1, 12, 33}) {
      both(add_row, {5, n}, {n});
      both(mul_row, {5, n}, {n});
      both(mul_column, {5, n}, {5});
    }
  }
}

TEST_F(CudaElementwise, Reductions_and_their_gradients) {
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (const Shape& s : {Shape{1, 1}, Shape{5, 33}, Shape{3, 5000}, Shape{70, 128}}) {
      const auto with = [&](auto op, const Shape& out, DType type) {
        compare_gradients({random_tensor(rng, s, dtype)}, out, type, tolerance(dtype),
                          [&](Context& c, std::vector<Tensor>& in) { return op(c, in[0]); });
      };
      with(softmax, s, dtype);
      with(log_softmax, s, dtype);
      with(logsumexp, {s[0]}, DType::kF32);
      with(sum_rows, {s[0]}, DType::kF32);
      with(sum, {1}, DType::kF32);
      with(mean, {1}, DType::kF32);
    }
}

TEST_F(CudaElementwise, Rows_by_index_in_order) {
  const Tensor index = ids_of({3, 0, 3, 3, 6, 1, 0}), distinct = ids_of({4, 0, 2});
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (int64_t n : {1, 8, 37, 600}) {
      compare_gradients({random_tensor(rng, {7, n}, dtype), index}, {7, n}, dtype, tolerance(dtype),
                        [](Context& c, std::vector<Tensor>& in) { return gather_rows(c, in[0], in[1]); });
      compare_gradients({random_tensor(rng, {3, n}, dtype), distinct}, {5, n}, dtype, tolerance(dtype),
                        [](Context& c, std::vector<Tensor>& in) { return scatter_rows(c, in[0], in[1], 5); });
    }
  compare_gradients({random_tensor(rng, {7, 9}), index}, {7}, DType::kF32, 1e-6,
                    [](Context& c, std::vector<Tensor>& in) { return gather_columns(c, in[0], in[1]); });
  // many rows of few ids: more than one list of hits
  std::vector<int32_t> ids;
  for (int i = 0; i < 2000; ++i) ids.push_back(static_cast<int32_t>(rng.below(5)));
  compare_gradients({random_tensor(rng, {5, 40}), ids_of(ids)}, {2000, 40}, DType::kF32, 1e-5,
                    [](Context& c, std::vector<Tensor>& in) { return gather_rows(c, in[0], in[1]); });
}

TEST_F(CudaElementwise, Dropout_draws_the_bits_of_the_cpu) {
  for (int64_t n : {1, 30, 257}) {
    const Tensor x = random_tensor(rng, {6, n});
    const Tensor rows = tensor_of<int64_t>({5, 1, 9, 4, int64_t{1} << 40, 0}, {6}, DType::kI64);
    compare(
        {x, rows},
        [](Context& c, std::vector<Tensor>& in) {
          return std::vector<Tensor>{dropout(c, in[0], 0.3f, {.seed = 11, .module = 3, .step = 5}, in[1])};
        },
        1e-7);
  }
}

TEST_F(CudaElementwise, Concatenation_and_large_transfers) {
  compare_gradients({random_tensor(rng, {4, 3}), random_tensor(rng, {4, 8})}, {4, 11}, DType::kF32, 1e-7,
                    [](Context& c, std::vector<Tensor>& in) { return concat_columns(c, in); });
  const Tensor large = random_tensor(rng, {3'000'001});  // more than the pinned ring's chunk
  compare(
      {large}, [](Context& c, std::vector<Tensor>& in) { return std::vector<Tensor>{affine(c, in[0], 2, 1)}; }, 1e-7);
}

}  // namespace
}  // namespace pmetal::ops
