// Matrix products through cuBLASLt, opened with dlopen: a binary starts where the library is not, and the products then
// say so. Plans (descriptors and the algorithm that the library's heuristic names; for large problems the fastest of
// those it names that give the same bits) are kept per problem. f32 problems run in plain f32, never TF32. Schemes that
// add partial results in place are left out: same bits always.
#pragma once

#include <memory>
#include <optional>

#include <cublasLt.h>

#include "backend/cuda/stream.h"

namespace pmetal::cuda {

inline constexpr int64_t kProductWorkspace = 32 << 20;

// c[m, n] = alpha · op(a) · op(b) (+ bias[n]) (+ c), all row-major with leading dimensions in elements
struct Gemm {
  const void *a, *b, *bias;
  void* c;
  int64_t m, n, k, lda, ldb, ldc;
  bool transpose_a, transpose_b;  // a is stored [k, m], b is stored [n, k]
  DType a_type, b_type, c_type, bias_type;
  bool accumulate;
  float alpha;
  // the algorithm does not depend on m: a row of c has the same bits whatever stands beside it
  bool any_rows = false;
};
// Nothing where strides or dtypes are not the library's; a and b as in ops::MatmulArgs.
std::optional<Gemm> as_gemm(const View& a, bool transpose_a, const View& b, bool transpose_b, const View& c);

class Products {
 public:
  Products();  // never throws: available() says whether the library is there
  ~Products();
  const char* unavailable() const;  // why not, or null
  // True when the library has an algorithm for it.
  bool accepts(const Gemm& gemm);
  // workspace: kProductWorkspace bytes, aligned to 256
  void run(const Gemm& gemm, void* workspace, cudaStream_t stream);

 private:
  struct Library;
  struct Plan;
  struct Plans;
  Plan* plan(const Gemm& gemm);
  void choose(Plan& plan, const Gemm& gemm, void* workspace, cudaStream_t stream);
  void multiply(const Plan& plan, const Gemm& gemm, const cublasLtMatmulHeuristicResult_t& choice, void* workspace,
                cudaStream_t stream);
  std::unique_ptr<Library> library_;
  std::unique_ptr<Plans> plans_;
};

}  // namespace pmetal::cuda
