// The matrix instruction of a warpgroup (4 warps), sm_90a: c[64, kN] += a[64, 16] · b[16, kN], bf16 in, f32 sums in
// registers; b, and a where it is not in registers, are read from shared memory through descriptors (PTX ISA, "wgmma").
// It runs in the background: fence, issue, commit, then wait before anything touches its registers or its tiles.
// Thread t of a warpgroup holds of c the rows 16 (t / 32) + t % 32 / 4 + {0, 8} and the columns 8 j + 2 (t % 4) + {0,
// 1}, as mma.sync does; so rounded sums are the a operand of the next product without moving.
//
// A tile of [kRows, d] bf16 lies in shared memory as panels of 64 columns, a panel as kRows lines of 128 bytes whose
// 16-byte chunks are swizzled: chunk c of row r at c ^ (r % 8). The same tile serves as b in both directions:
//   x · tileᵀ   rows are the columns of b, inner dimension contiguous ("K-major"): a step of 16 is 32 bytes further
//   x · tile    rows are the inner dimension, columns contiguous ("MN-major"): a step of 16 is 16 lines further
#pragma once

#include "backend/cuda/device.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PMETAL_WGMMA 1  // other device code of the same file is empty and never launched
#endif

namespace pmetal::cuda {

// Ordinary stores and cp.async to shared memory become visible to the matrix unit.
__device__ __forceinline__ void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#if PMETAL_WGMMA
#define PMETAL_ACC(c, i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving uses of these registers over this point.
template <int kN>
__device__ __forceinline__ void pin(float (&c)[kN][4]) {
#pragma unroll
  for (int i = 0; i < kN; ++i) asm volatile("" : PMETAL_ACC(c, i)::"memory");
}
// After the wait: says that the products read these a operands until here, so that no new values take their registers.
template <int kN>
__device__ __forceinline__ void keep(const uint32_t (&a)[kN][4]) {
#pragma unroll
  for (int i = 0; i < kN; ++i) asm volatile("" ::"r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]) : "memory");
}
// Descriptors of a tile in the 128-byte swizzle: address, leading and stride offset in units of 16 bytes. Groups of 8
// lines are 1024 bytes apart in both directions; the leading offset is the distance of panels, used by tiles that lie
// across ("MN-major") alone.
__device__ __forceinline__ uint64_t descriptor(uint32_t address, uint32_t panel_bytes) {
  return uint64_t{1} << 62 | uint64_t{1024 >> 4} << 32 | static_cast<uint64_t>(panel_bytes >> 4) << 16 |
         (address & 0x3ffff) >> 4;
}

template <int kTransposed>
__device__ __forceinline__ void wgmma(float (&c)[8][4], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, %32, %33, p, 1, 1, 0, %35;\n"
      "}\n"
      : PMETAL_ACC(c, 0), PMETAL_ACC(c, 1), PMETAL_ACC(c, 2), PMETAL_ACC(c, 3), PMETAL_ACC(c, 4), PMETAL_ACC(c, 5),
        PMETAL_ACC(c, 6), PMETAL_ACC(c, 7)
      : "l"(a), "l"(b), "r"(add), "n"(kTransposed));
}
template <int kTransposed>
__device__ __forceinline__ void wgmma(float (&c)[16][4], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, p, 1, 1, 0, %67;\n"
      "}\n"
      : PMETAL_ACC(c, 0), PMETAL_ACC(c, 1), PMETAL_ACC(c, 2), PMETAL_ACC(c, 3), PMETAL_ACC(c, 4), PMETAL_ACC(c, 5),
        PMETAL_ACC(c, 6), PMETAL_ACC(c, 7), PMETAL_ACC(c, 8), PMETAL_ACC(c, 9), PMETAL_ACC(c, 10), PMETAL_ACC(c, 11),
        PMETAL_ACC(c, 12), PMETAL_ACC(c, 13), PMETAL_ACC(c, 14), PMETAL_ACC(c, 15)
      : "l"(a), "l"(b), "r"(add), "n"(kTransposed));
}
template <int kTransposed>
__device__ __forceinline__ void wgmma(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, {%32, %33, %34, %35}, %36, p, 1, 1, %38;\n"
      "}\n"
      : PMETAL_ACC(c, 0), PMETAL_ACC(c, 1), PMETAL_ACC(c, 2), PMETAL_ACC(c, 3), PMETAL_ACC(c, 4), PMETAL_ACC(c, 5),
        PMETAL_ACC(c, 6), PMETAL_ACC(c, 7)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kTransposed));
}
template <int kTransposed>
__device__ __forceinline__ void wgmma(float (&c)[16][4], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, {%64, %65, %66, %67}, %68, p, 1, 1, %70;\n"
      "}\n"
      : PMETAL_ACC(c, 0), PMETAL_ACC(c, 1), PMETAL_ACC(c, 2), PMETAL_ACC(c, 3), PMETAL_ACC(c, 4), PMETAL_ACC(c, 5),
        PMETAL_ACC(c, 6), PMETAL_ACC(c, 7), PMETAL_ACC(c, 8), PMETAL_ACC(c, 9), PMETAL_ACC(c, 10), PMETAL_ACC(c, 11),
        PMETAL_ACC(c, 12), PMETAL_ACC(c, 13), PMETAL_ACC(c, 14), PMETAL_ACC(c, 15)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kTransposed));
}
#endif

}  // namespace pmetal::cuda
