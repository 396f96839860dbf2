#include "backend/cuda/stream.h"

#include <cstring>
#include <vector>

#include "backend/cuda/kernels.h"
#include "backend/cuda/lt.h"
#include "base/error.h"

namespace pmetal::cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) [[likely]]
    return;
  fail(status == cudaErrorMemoryAllocation ? ErrorCode::kOutOfMemory : ErrorCode::kUnsupported, "CUDA: {}: {} ({})",
       what, cudaGetErrorString(status), cudaGetErrorName(status));
}

void check_launch(const char* op) { check(cudaGetLastError(), op); }

void allow_shared(SharedLimit& limit, const void* kernel, int bytes) {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  if (limit.devices >> device & 1) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "shared memory of a kernel");
  limit.devices |= uint64_t{1} << device;
}

// A ring of pinned chunks. Small transfers share a chunk; a chunk is used again when the device has read it.
class Staging {
 public:
  static constexpr int64_t kChunk = 4 << 20, kChunks = 8;

  Staging() {
    check(cudaMallocHost(&memory_, kChunk * kChunks), "pinned memory");
    for (cudaEvent_t& e : done_) check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "event");
  }
  ~Staging() {
    for (cudaEvent_t e : done_) cudaEventDestroy(e);
    cudaFreeHost(memory_);
  }
  // `bytes` of pinned memory that no queued copy reads; bytes <= kChunk
  std::byte* take(int64_t bytes, cudaStream_t stream) {
    const int64_t size = (bytes + 255) / 256 * 256;
    if (used_ + size > kChunk) {
      check(cudaEventRecord(done_[chunk_], stream), "event");
      chunk_ = (chunk_ + 1) % kChunks;
      check(cudaEventSynchronize(done_[chunk_]), "copy to the device");
      used_ = 0;
    }
    std::byte* p = static_cast<std::byte*>(memory_) + chunk_ * kChunk + used_;
    used_ += size;
    return p;
  }

 private:
  void* memory_ = nullptr;
  cudaEvent_t done_[kChunks] = {};
  int64_t chunk_ = 0, used_ = 0;
};

struct Arrival {
  ~Arrival() {
    if (done) cudaEventDestroy(done);
    if (pinned) cudaFreeHost(pinned);
  }
  void* pinned = nullptr;
  int64_t size = 0;
  cudaEvent_t done = nullptr;
  bool is_busy = false;
};

Stream::Stream(int device) : device_(device) {
  check(cudaSetDevice(device), "cudaSetDevice");
  check(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "stream");
  check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device), "device attribute");
  int major = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "device attribute");
  is_sm90_ = major == 9;
  staging_ = std::make_unique<Staging>();
}

Stream::~Stream() {
  cudaSetDevice(device_);
  cudaStreamSynchronize(handle_);
  products_.reset();
  arrivals_.clear();
  staging_.reset();
  cudaStreamDestroy(handle_);
}

Products& Stream::products() {
  if (!products_) products_ = std::make_unique<Products>();
  return *products_;
}

void Stream::refuse_while_recording(const char* what) const {
  if (is_recording_) fail(ErrorCode::kUnsupported, "CUDA: {} within a step that is recorded as a graph", what);
}

void Stream::begin_recording() {
  refuse_while_recording("recording");
  check(cudaSetDevice(device_), "cudaSetDevice");
  // relaxed: kernels may be loaded and blocks allocated meanwhile
  check(cudaStreamBeginCapture(handle_, cudaStreamCaptureModeRelaxed), "recording a graph");
  is_recording_ = true;
}

cudaGraph_t Stream::end_recording() {
  cudaGraph_t graph = nullptr;
  is_recording_ = false;
  check(cudaStreamEndCapture(handle_, &graph), "recording a graph");
  return graph;
}

void Stream::abandon_recording() noexcept {
  if (!is_recording_) return;
  is_recording_ = false;
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(handle_, &graph);
  if (graph) cudaGraphDestroy(graph);
  cudaGetLastError();
}

void Stream::upload(const void* from, void* to, int64_t bytes) {
  refuse_while_recording("a copy to the device");
  for (int64_t at = 0; at < bytes; at += Staging::kChunk) {
    const int64_t n = std::min(Staging::kChunk, bytes - at);
    std::byte* pinned = staging_->take(n, handle_);
    std::memcpy(pinned, static_cast<const std::byte*>(from) + at, static_cast<size_t>(n));
    check(cudaMemcpyAsync(static_cast<std::byte*>(to) + at, pinned, static_cast<size_t>(n), cudaMemcpyHostToDevice,
                          handle_),
          "copy to the device");
  }
}

void Stream::download(const void* from, void* to, int64_t bytes) {
  refuse_while_recording("a copy to the host");
  for (int64_t at = 0; at < bytes; at += Staging::kChunk) {
    const int64_t n = std::min(Staging::kChunk, bytes - at);
    std::byte* pinned = staging_->take(n, handle_);
    check(cudaMemcpyAsync(pinned, static_cast<const std::byte*>(from) + at, static_cast<size_t>(n),
                          cudaMemcpyDeviceToHost, handle_),
          "copy to the host");
    synchronize();
    std::memcpy(static_cast<std::byte*>(to) + at, pinned, static_cast<size_t>(n));
  }
}

Arrival* Stream::begin_download(const void* from, int64_t bytes) {
  refuse_while_recording("a copy to the host");
  Arrival* free = nullptr;
  for (const auto& a : arrivals_)
    if (!a->is_busy && a->size >= bytes && (!free || a->size < free->size)) free = a.get();
  if (!free) {
    free = arrivals_.emplace_back(std::make_unique<Arrival>()).get();
    check(cudaEventCreateWithFlags(&free->done, cudaEventDisableTiming), "event");
    check(cudaMallocHost(&free->pinned, static_cast<size_t>(bytes)), "pinned memory");
    free->size = bytes;
  }
  check(cudaMemcpyAsync(free->pinned, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, handle_),
        "copy to the host");
  check(cudaEventRecord(free->done, handle_), "event");
  free->is_busy = true;
  return free;
}

// Whoever takes its memory next waits on the host for a copy that comes later in the queue.
void Stream::give_back(Arrival* arrival) noexcept { arrival->is_busy = false; }

void end_download(Arrival& arrival, void* to, int64_t bytes) {
  check(cudaEventSynchronize(arrival.done), "copy to the host");
  std::memcpy(to, arrival.pinned, static_cast<size_t>(bytes));
}

void Stream::synchronize() {
  refuse_while_recording("waiting");
  check(cudaStreamSynchronize(handle_), "waiting for the device");
}

void Stream::synchronize_quietly() noexcept {
  cudaSetDevice(device_);
  cudaStreamSynchronize(handle_);
}

Stream& stream_of(const KernelContext& kernel) {
  Stream& stream = *static_cast<Stream*>(kernel.stream);
  int current = -1;
  if (cudaGetDevice(&current) != cudaSuccess || current != stream.device())
    check(cudaSetDevice(stream.device()), "cudaSetDevice");
  return stream;
}

}  // namespace pmetal::cuda
