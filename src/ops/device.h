// Where contexts come from: the CPU, a CUDA device, or meta. The CUDA backend answers these, or its stub where it was
// not built.
#pragma once

#include <memory>
#include <string>

#include "quant/weight.h"
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

// A tensor (contiguous) or weight on the host, whatever device it lies on; itself when it is there already. Waits for
// all work of that device: for saving and for one-time preparation, not for steps.
Tensor host_copy(const Tensor& x);
quant::Weight host_copy(const quant::Weight& weight);
// the reverse for planes: a weight of the host on the context's device
quant::Weight to_device(Context& ctx, const quant::Weight& weight);

// A copy to the host that is under way while the device goes on; of what x holds when the queue gets there.
class Download {
 public:
  Download() = default;  // of nothing
  Download(Context& ctx, const Tensor& x);
  bool defined() const { return host_.defined() || arrival_ != nullptr; }
  const Tensor& get();  // waits for the bytes

 private:
  Tensor host_;
  Shape shape_;
  DType dtype_ = DType::kF32;
  std::shared_ptr<void> arrival_;
};

// the backends' answers
struct CudaQueue {
  std::shared_ptr<Allocator> allocator;
  void* stream;  // Context::stream(); lives as long as the allocator
};
CudaQueue open_cuda(int index);
const RangeMarks* range_marks_cuda();  // null unless PMETAL_NVTX is set
void synchronize_cuda(void* stream);
std::shared_ptr<void> begin_download_cuda(void* stream, const void* from, int64_t bytes);
void end_download_cuda(const std::shared_ptr<void>& arrival, void* to, int64_t bytes);  // waits
void copy_from_cuda(const Buffer& from, void* to);                                      // after all work of the device

}  // namespace pmetal::ops
