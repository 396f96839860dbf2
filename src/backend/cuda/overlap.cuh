// Programmatic dependent launch: a kernel may start while the one before it on the stream still runs, so that its start
// and what it does before wait_for_inputs() hide behind that one's tail. Before it, only addresses and prefetches into
// L2 are allowed (any byte may still be written); after it, everything earlier on the stream is done and visible. A
// kernel that is launched this way calls wait_for_inputs() in every thread that goes on, before it reads or writes.
#pragma once

#include <cuda_runtime.h>

#include "backend/cuda/device.cuh"

namespace pmetal::cuda {

// Before Hopper kernels do not overlap: there is nothing to wait for.
__device__ __forceinline__ void wait_for_inputs() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// the next kernel of the stream may be started when all blocks have said so
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void prefetch_l2(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

template <class... Params, class... Args>
void launch_overlapped(StreamHandle stream, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
                       const Args&... args) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &overlap;
  config.numAttrs = 1;
  cudaLaunchKernelEx(&config, kernel, Params(args)...);  // a failure is found by check_launch()
}

}  // namespace pmetal::cuda
