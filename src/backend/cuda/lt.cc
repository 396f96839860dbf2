#include "backend/cuda/lt.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "backend/cuda/kernels.h"
#include "backend/cuda/race.h"
#include "base/error.h"

namespace pmetal::cuda {
namespace {

// clang-format off
#define PMETAL_LT_FUNCTIONS(X)                                                                            \
  X(cublasLtCreate)                                                                                       \
  X(cublasLtDestroy)                                                                                      \
  X(cublasLtMatmul)                                                                                       \
  X(cublasLtMatmulDescCreate)                                                                             \
  X(cublasLtMatmulDescDestroy) X(cublasLtMatmulDescSetAttribute) X(cublasLtMatrixLayoutCreate)            \
      X(cublasLtMatrixLayoutDestroy) X(cublasLtMatmulPreferenceCreate) X(cublasLtMatmulPreferenceDestroy) \
          X(cublasLtMatmulPreferenceSetAttribute) X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtMatmulAlgoCheck)
// clang-format on

constexpr int64_t kRowsOfAny = 64;  // a product for any number of rows takes the algorithm of so many

std::optional<cudaDataType_t> library_type(DType dtype) {
  switch (dtype) {
    case DType::kF32: return CUDA_R_32F;
    case DType::kBF16: return CUDA_R_16BF;
    case DType::kF16: return CUDA_R_16F;
    default: return std::nullopt;
  }
}

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(ErrorCode::kUnsupported, "cuBLASLt: {} failed (status {})", what, static_cast<int>(status));
}

// the pointers' alignment, up to 16 bytes, which the fastest kernels want
uint32_t alignment(const void* p) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(p);
  return at % 16 == 0 ? 16 : static_cast<uint32_t>(at & (~at + 1));
}

// stride between rows, and whether the matrix is stored by columns
bool stored(const View& v, int64_t& leading, bool& by_columns) {
  const int64_t rows = v.shape[0], columns = v.shape[1];
  if (v.strides[1] == 1 || columns == 1) {
    leading = rows == 1 ? std::max<int64_t>(columns, 1) : v.strides[0];
    by_columns = false;
    return leading >= columns;
  }
  if (v.strides[0] == 1 || rows == 1) {
    leading = columns == 1 ? std::max<int64_t>(rows, 1) : v.strides[1];
    by_columns = true;
    return leading >= rows;
  }
  return false;
}

}  // namespace

std::optional<Gemm> as_gemm(const View& a, bool transpose_a, const View& b, bool transpose_b, const View& c) {
  if (a.dtype != b.dtype || !library_type(a.dtype) || !library_type(c.dtype)) return std::nullopt;
  if (c.dtype != DType::kF32 && c.dtype != a.dtype) return std::nullopt;
  Gemm g{};
  bool a_columns, b_columns, c_columns;
  if (!stored(a, g.lda, a_columns) || !stored(b, g.ldb, b_columns) || !stored(c, g.ldc, c_columns) || c_columns)
    return std::nullopt;
  g.a = a.data;
  g.b = b.data;
  g.c = c.data;
  g.m = c.shape[0];
  g.n = c.shape[1];
  g.k = a.shape[transpose_a ? 0 : 1];
  g.transpose_a = transpose_a != a_columns;
  g.transpose_b = transpose_b != b_columns;
  g.a_type = a.dtype;
  g.b_type = b.dtype;
  g.c_type = c.dtype;
  g.alpha = 1;
  if (g.m == 0 || g.n == 0 || g.k == 0) return std::nullopt;
  return g;
}

struct Products::Library {
#define X(name) decltype(&::name) name = nullptr;
  PMETAL_LT_FUNCTIONS(X)
#undef X
  cublasLtHandle_t handle = nullptr;
  std::string reason;

  void open() {
    const std::string file = fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR);
    void* library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    for (const char* folder : {"/usr/local/cuda/lib64/", "/usr/lib/x86_64-linux-gnu/"})
      if (!library) library = ::dlopen((folder + file).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      reason = fmt::format("{} is not found; install CUDA's cuBLAS {} or add its folder to LD_LIBRARY_PATH", file,
                           CUBLAS_VER_MAJOR);
      return;
    }
#define X(name)                                                        \
  name = reinterpret_cast<decltype(&::name)>(::dlsym(library, #name)); \
  if (!name) reason = file + " lacks " #name;
    PMETAL_LT_FUNCTIONS(X)
#undef X
    if (reason.empty() && cublasLtCreate(&handle) != CUBLAS_STATUS_SUCCESS) reason = "cuBLASLt does not start";
  }
};

struct Products::Plan {
  cublasLtMatmulDesc_t description = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulHeuristicResult_t choice{};
  bool usable = false;
  std::vector<cublasLtMatmulHeuristicResult_t> others;  // to be timed against `choice` at the first run
  bool has_winner = false;  // the other one has won the race of a like problem: only its bits are looked at
};

struct Products::Plans {
  using Key = std::array<int64_t, 11>;
  std::map<Key, Plan> all;
  std::map<Key, cublasLtMatmulHeuristicResult_t> winners;  // of races, by like()
};

Products::Products() : library_(std::make_unique<Library>()), plans_(std::make_unique<Plans>()) { library_->open(); }

Products::~Products() {
  for (auto& [key, p] : plans_->all) {
    for (cublasLtMatrixLayout_t layout : {p.a, p.b, p.c})
      if (layout) library_->cublasLtMatrixLayoutDestroy(layout);
    if (p.description) library_->cublasLtMatmulDescDestroy(p.description);
  }
  if (library_->handle) library_->cublasLtDestroy(library_->handle);
}

const char* Products::unavailable() const { return library_->reason.empty() ? nullptr : library_->reason.c_str(); }

namespace {

// Large products race once for each power of two of rows: packed steps differ a little in their number from one to the
// next.
constexpr int64_t kTimedRows = 4096, kTimedSide = 512, kTimedHead = 65536;
constexpr int kTimedChoices = 8;
template <class Key>
Key like(Key key) {
  key[0] = static_cast<int64_t>(std::bit_width(static_cast<uint64_t>(key[0])));
  return key;
}
std::array<int64_t, 11> key_of(const Gemm& g) {
  const int64_t flags = g.transpose_a | g.transpose_b << 1 | g.accumulate << 2 | (g.bias != nullptr) << 3 |
                        static_cast<int>(g.a_type) << 4 | static_cast<int>(g.c_type) << 10 |
                        static_cast<int>(g.bias_type) << 16 | int64_t{g.any_rows} << 24;
  return {g.m, g.n, g.k, g.lda, g.ldb, g.ldc, flags, alignment(g.a), alignment(g.b), alignment(g.c), alignment(g.bias)};
}
bool is_timed(const Gemm& g) {
  const bool is_large = g.m >= kTimedRows || (g.m >= kTimedSide && std::max(g.n, g.k) >= kTimedHead);
  return is_large && g.n >= kTimedSide && g.k >= kTimedSide && !g.accumulate && !g.any_rows && g.a_type != DType::kF32;
}

}  // namespace

Products::Plan* Products::plan(const Gemm& g) {
  const Plans::Key key = key_of(g);
  const auto [at, fresh] = plans_->all.try_emplace(key);
  Plan& p = at->second;
  if (!fresh) return p.usable ? &p : nullptr;

  const Library& lt = *library_;
  const cudaDataType_t in = *library_type(g.a_type), out = *library_type(g.c_type);
  check(lt.cublasLtMatmulDescCreate(&p.description, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a description");
  const auto set = [&](cublasLtMatmulDescAttributes_t which, const auto& value) {
    check(lt.cublasLtMatmulDescSetAttribute(p.description, which, &value, sizeof value), "an attribute");
  };
  // The library thinks in columns: cᵀ = op(b)ᵀ · op(a)ᵀ, its first operand is our b.
  set(CUBLASLT_MATMUL_DESC_TRANSA, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (g.bias) {
    const cudaDataType_t bias = *library_type(g.bias_type);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias);
  }
  const auto layout = [&](cublasLtMatrixLayout_t& l, cudaDataType_t type, int64_t rows, int64_t columns, int64_t ld) {
    check(lt.cublasLtMatrixLayoutCreate(&l, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), ld),
          "a layout");
  };
  layout(p.a, in, g.transpose_b ? g.k : g.n, g.transpose_b ? g.n : g.k, g.ldb);
  const auto row_layouts = [&](int64_t m) {
    layout(p.b, in, g.transpose_a ? m : g.k, g.transpose_a ? g.k : m, g.transpose_a ? std::max(m, g.lda) : g.lda);
    layout(p.c, out, g.n, m, g.ldc);
  };
  row_layouts(g.any_rows ? kRowsOfAny : g.m);

  cublasLtMatmulPreference_t preference = nullptr;
  check(lt.cublasLtMatmulPreferenceCreate(&preference), "a preference");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t which, const auto& value) {
    check(lt.cublasLtMatmulPreferenceSetAttribute(preference, which, &value, sizeof value), "a preference");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kProductWorkspace));
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(g.b));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(g.a));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(g.c));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(g.c));
  int found = 0;
  std::array<cublasLtMatmulHeuristicResult_t, kTimedChoices> choices{};
  const cublasStatus_t status =
      lt.cublasLtMatmulAlgoGetHeuristic(lt.handle, p.description, p.a, p.b, p.c, p.c, preference,
                                        is_timed(g) ? kTimedChoices : 1, choices.data(), &found);
  lt.cublasLtMatmulPreferenceDestroy(preference);
  p.choice = choices[0];
  p.usable = status == CUBLAS_STATUS_SUCCESS && found > 0 && p.choice.state == CUBLAS_STATUS_SUCCESS;
  const auto can_run = [&](const cublasLtMatmulHeuristicResult_t& choice) {
    cublasLtMatmulHeuristicResult_t result{};
    return lt.cublasLtMatmulAlgoCheck(lt.handle, p.description, p.a, p.b, p.c, p.c, &choice.algo, &result) ==
               CUBLAS_STATUS_SUCCESS &&
           result.state == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= size_t{kProductWorkspace};
  };
  if (p.usable && g.any_rows) {
    for (cublasLtMatrixLayout_t l : {p.b, p.c}) check(lt.cublasLtMatrixLayoutDestroy(l), "a layout");
    p.b = p.c = nullptr;
    row_layouts(g.m);
    p.usable = can_run(p.choice);
  }
  if (const auto winner = plans_->winners.find(like(key)); winner != plans_->winners.end()) {
    p.has_winner = true;
    if (p.usable && can_run(winner->second)) p.others.push_back(winner->second);
    return p.usable ? &p : nullptr;
  }
  for (int i = 1; p.usable && i < found; ++i)
    if (choices[static_cast<size_t>(i)].state == CUBLAS_STATUS_SUCCESS)
      p.others.push_back(choices[static_cast<size_t>(i)]);
  return p.usable ? &p : nullptr;
}

bool Products::accepts(const Gemm& gemm) {
  if (unavailable() || (gemm.bias && !library_type(gemm.bias_type))) return false;
  return plan(gemm) != nullptr;
}

void Products::multiply(const Plan& p, const Gemm& g, const cublasLtMatmulHeuristicResult_t& choice, void* workspace,
                        cudaStream_t stream) {
  const float beta = g.accumulate ? 1.f : 0.f;
  check(library_->cublasLtMatmul(library_->handle, p.description, &g.alpha, g.b, p.a, g.a, p.b, &beta, g.c, p.c, g.c,
                                 p.c, &choice.algo, workspace, static_cast<size_t>(kProductWorkspace), stream),
        "a product");
}

// The fastest algorithm of equal bits (race.h). A winner of a like problem is only asked for its bits.
void Products::choose(Plan& p, const Gemm& g, void* workspace, cudaStream_t stream) {
  const auto bits = [&] {
    uint64_t sum = 0;
    launch_hash_rows(stream, g.c, g.m, g.n * size_of(g.c_type), g.ldc * size_of(g.c_type),
                     static_cast<unsigned long long*>(workspace));
    check_launch("a product's check sum");
    check(cudaMemcpyAsync(&sum, workspace, sizeof sum, cudaMemcpyDeviceToHost, stream), "a copy");
    check(cudaStreamSynchronize(stream), "waiting for the device");
    return sum;
  };
  struct Event {
    Event() { check(cudaEventCreate(&handle), "an event"); }
    ~Event() { cudaEventDestroy(handle); }
    cudaEvent_t handle = nullptr;
  } start, stop;
  const auto milliseconds = [&](const cublasLtMatmulHeuristicResult_t& choice) {
    float best = std::numeric_limits<float>::max(), one = 0;
    for (int i = 0; i < 3; ++i) {
      check(cudaEventRecord(start.handle, stream), "an event");
      multiply(p, g, choice, workspace, stream);
      check(cudaEventRecord(stop.handle, stream), "an event");
      check(cudaEventSynchronize(stop.handle), "waiting for the device");
      check(cudaEventElapsedTime(&one, start.handle, stop.handle), "an event's time");
      best = std::min(best, one);
    }
    return best;
  };
  std::vector<cublasLtMatmulHeuristicResult_t> all = std::exchange(p.others, {});
  all.insert(all.begin(), p.choice);
  const auto at = [&](int i) -> const cublasLtMatmulHeuristicResult_t& { return all[static_cast<size_t>(i)]; };
  const int winner = fastest_of_equal_bits(
      static_cast<int>(all.size()),
      [&](int i) {
        multiply(p, g, at(i), workspace, stream);
        return bits();
      },
      [&](int i) { return p.has_winner ? static_cast<float>(-i) : milliseconds(at(i)); });
  p.choice = at(winner);
  if (!p.has_winner) plans_->winners.emplace(like(key_of(g)), p.choice);
}

void Products::run(const Gemm& g, void* workspace, cudaStream_t stream) {
  Plan* p = plan(g);
  PMETAL_ASSERT(p, "product [{}, {}] x [{}, {}] was not accepted", g.m, g.k, g.k, g.n);
  if (g.bias)
    check(library_->cublasLtMatmulDescSetAttribute(p->description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g.bias,
                                                   sizeof g.bias),
          "the bias");
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  if (!p->others.empty() && cudaStreamIsCapturing(stream, &capture) == cudaSuccess &&
      capture == cudaStreamCaptureStatusNone)
    choose(*p, g, workspace, stream);
  multiply(*p, g, p->choice, workspace, stream);
}

}  // namespace pmetal::cuda
