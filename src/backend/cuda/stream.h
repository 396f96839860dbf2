// One queue of work on one device: what KernelContext::stream points to. Holds the CUDA stream, pinned memory through
// which host bytes travel, and the product library's handle with its plans. One thread at a time submits to it.
#pragma once

#include <memory>
#include <vector>

#include <cuda_runtime_api.h>

#include "tensor/kernel.h"

namespace pmetal::cuda {

class Products;  // lt.h
class Staging;
struct Arrival;  // a copy to pinned memory that is under way

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
  // A copy that is under way while the queue goes on, until end_download(); then, or unread, it is given back.
  Arrival* begin_download(const void* from, int64_t bytes);
  void give_back(Arrival* arrival) noexcept;
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
  std::vector<std::unique_ptr<Arrival>> arrivals_;  // all that were ever needed at once
  std::unique_ptr<Products> products_;
};

void end_download(Arrival& arrival, void* to, int64_t bytes);  // waits for this copy alone

// The stream of a kernel; makes its device the calling thread's.
Stream& stream_of(const KernelContext& kernel);

// Error(kUnsupported / kOutOfMemory) naming the call, unless `status` is success
void check(cudaError_t status, const char* what);
// after launches: configuration errors of `op`, and errors of earlier work that surfaced
void check_launch(const char* op);

}  // namespace pmetal::cuda
