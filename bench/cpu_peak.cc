#include "cpu_peak.h"

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <ctime>

#include "base/buffer.h"

#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace pmetal::bench {
namespace {

bool processor_time = false;
constexpr int64_t kRounds = 4'000'000;
std::atomic<float> sink{0};

// Each loop does kRounds rounds of 12 independent instructions (registers start as they are: the operands are zero or
// whatever lies there, no value is read) and returns the operations of one round.
#define PMETAL_TWELVE(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11)
#define PMETAL_PEAK(name, zero, op, operations)                                                                   \
  double name() {                                                                                                 \
    asm volatile(PMETAL_TWELVE(zero) zero(14) zero(15)::: "memory");                                              \
    for (int64_t i = 0; i < kRounds; ++i)                                                                         \
      asm volatile(PMETAL_TWELVE(op)::                                                                            \
                       : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
                         "xmm11", "xmm14", "xmm15");                                                              \
    asm volatile("vzeroupper");                                                                                   \
    return 12 * (operations);                                                                                     \
  }
#define PMETAL_ZERO_AVX(r) "vxorps %%ymm" #r ", %%ymm" #r ", %%ymm" #r "\n\t"
#define PMETAL_FMA_YMM(r) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" #r "\n\t"
#define PMETAL_FMA_ZMM(r) "vfmadd231ps %%zmm14, %%zmm15, %%zmm" #r "\n\t"
#define PMETAL_DOT_ZMM(r) "vdpbf16ps %%zmm14, %%zmm15, %%zmm" #r "\n\t"
PMETAL_PEAK(avx2_f32, PMETAL_ZERO_AVX, PMETAL_FMA_YMM, 8 * 2)
PMETAL_PEAK(avx512_f32, PMETAL_ZERO_AVX, PMETAL_FMA_ZMM, 16 * 2)
PMETAL_PEAK(avx512_bf16, PMETAL_ZERO_AVX, PMETAL_DOT_ZMM, 32 * 2)

double plain_f32() {
  __m128 x = _mm_set1_ps(1e-9f), y = _mm_set1_ps(0.5f);
  __m128 a = y, b = y, c = y, d = y, e = y, f = y;
  for (int64_t i = 0; i < kRounds; ++i) {
    a = _mm_add_ps(a, _mm_mul_ps(x, y)), b = _mm_add_ps(b, _mm_mul_ps(x, y)), c = _mm_add_ps(c, _mm_mul_ps(x, y));
    d = _mm_add_ps(d, _mm_mul_ps(x, y)), e = _mm_add_ps(e, _mm_mul_ps(x, y)), f = _mm_add_ps(f, _mm_mul_ps(x, y));
    asm volatile("" : "+x"(x), "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f));
  }
  return 6 * 4 * 2;
}
double amx_bf16() {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  asm volatile("ldtilecfg %0" : : "m"(config));
  for (int64_t i = 0; i < kRounds / 16; ++i)
    asm volatile(
        "tdpbf16ps %tmm6, %tmm4, %tmm0\n\ttdpbf16ps %tmm7, %tmm4, %tmm1\n\t"
        "tdpbf16ps %tmm6, %tmm5, %tmm2\n\ttdpbf16ps %tmm7, %tmm5, %tmm3");
  asm volatile("tilerelease");
  return 4.0 / 16 * 16 * 16 * 32 * 2;
}

double rate(double (*loop)(), ThreadPool& pool) {
  double best = 0;
  for (int repeat = 0; repeat < 12; ++repeat) {
    double per_round = 0;
    const double start = now_s(pool);
    pool.run([&](int worker) {
      const double r = loop();
      if (worker == 0) per_round = r;
    });
    const double seconds = (now_s(pool) - start);
    best = std::max(best, per_round * static_cast<double>(kRounds) * pool.size() / seconds);
  }
  return best;
}

__attribute__((target("avx2"))) void read_range(const char* from, const char* to) {
  __m256i sum = _mm256_setzero_si256();
  for (; from < to; from += 128) {
    _mm_prefetch(from + 4096, _MM_HINT_T0);
    _mm_prefetch(from + 4160, _MM_HINT_T0);
    for (int i = 0; i < 4; ++i)
      sum = _mm256_add_epi32(sum, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i * 32)));
  }
  sink.store(sink.load() + static_cast<float>(_mm256_extract_epi32(sum, 0)));
}

}  // namespace

void use_processor_time(bool on) { processor_time = on; }
double now_s(const ThreadPool& pool) {
  timespec t{};
  clock_gettime(processor_time ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return (static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9) / (processor_time ? pool.size() : 1);
}

void pin_caller() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) {
      CPU_ZERO(&set);
      CPU_SET(cpu, &set);
      sched_setaffinity(0, sizeof set, &set);
      return;
    }
}

double peak_f32_flops(cpu::Isa isa, ThreadPool& pool) {
  return rate(isa >= cpu::Isa::kAvx512 ? avx512_f32 : isa == cpu::Isa::kAvx2 ? avx2_f32 : plain_f32, pool);
}
double peak_bf16_flops(cpu::Isa isa, ThreadPool& pool) {
  if (isa == cpu::Isa::kAmx) return rate(amx_bf16, pool);
  if (isa == cpu::Isa::kAvx512Bf16) return rate(avx512_bf16, pool);
  return peak_f32_flops(isa, pool);
}

double memory_read_bytes_per_s(ThreadPool& pool) {
  const int64_t bytes = int64_t{512} << 20;
  const Buffer buffer = allocate_host(bytes);
  auto* data = reinterpret_cast<char*>(buffer.data());
  std::fill_n(data, bytes, 1);
  double best = 0;
  for (int repeat = 0; repeat < 8; ++repeat) {
    const double start = now_s(pool);
    pool.run([&](int worker) {
      read_range(data + bytes / pool.size() * worker, data + bytes / pool.size() * (worker + 1));
    });
    best = std::max(best, static_cast<double>(bytes) / (now_s(pool) - start));
  }
  return best;
}

}  // namespace pmetal::bench
