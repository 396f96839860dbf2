// Where contexts come from: the CPU, a CUDA device, or meta. The CUDA backend answers these, or its stub where it was
// not built.
#pragma once

#include <memory>
#include <string>

#include "tensor/context.h"

namespace pmetal::ops {

struct CudaState {
  int n_devices = 0;
  std::string reason;  // why there are none
};
CudaState cuda_state();

// A context on `device` with an allocator of its own and, on CUDA, a stream of its own.
// Error(kUnsupported) saying why, where the device is not there.
Context make_context(Device device, std::shared_ptr<ThreadPool> threads);

// Waits for everything that was queued; errors of queued work surface here.
void synchronize(const Context& ctx);

// the backends' answers
struct CudaQueue {
  std::shared_ptr<Allocator> allocator;
  void* stream;  // Context::stream(); lives as long as the allocator
};
CudaQueue open_cuda(int index);
void synchronize_cuda(void* stream);

}  // namespace pmetal::ops
