// One queue of work on one device: what KernelContext::stream points to. Holds the CUDA stream, pinned memory through
// which host bytes travel, and the product library's handle with its plans. One thread at a time submits to it.
#pragma once

#include <memory>

#include <cuda_runtime_api.h>

#include "tensor/kernel.h"

namespace pmetal::cuda {

class Products;  // lt.h
class Staging;

class Stream {
 public:
  explicit Stream(int device);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t handle() const { return handle_; }
  int device() const { return device_; }
  int multiprocessors() const { return multiprocessors_; }
  bool is_sm90() const { return is_sm90_; }  // Hopper: compute capability 9.x
  Products& products();
  void upload(const void* from, void* to, int64_t bytes);    // returns when `from` may change; the copy is queued
  void download(const void* from, void* to, int64_t bytes);  // waits
  void synchronize();
  void synchronize_quietly() noexcept;  // for destructors

  // Between these, launches are recorded into a graph instead of run; transfers and waiting are errors.
  void begin_recording();
  cudaGraph_t end_recording();  // the caller destroys it
  void abandon_recording() noexcept;
  bool is_recording() const { return is_recording_; }

 private:
  void refuse_while_recording(const char* what) const;
  bool is_recording_ = false;
  int device_, multiprocessors_ = 0;
  bool is_sm90_ = false;
  cudaStream_t handle_ = nullptr;
  std::unique_ptr<Staging> staging_;
  std::unique_ptr<Products> products_;
};

// The stream of a kernel; makes its device the calling thread's.
Stream& stream_of(const KernelContext& kernel);

// Error(kUnsupported / kOutOfMemory) naming the call, unless `status` is success
void check(cudaError_t status, const char* what);
// after launches: configuration errors of `op`, and errors of earlier work that surfaced
void check_launch(const char* op);

}  // namespace pmetal::cuda
