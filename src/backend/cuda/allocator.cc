// Device memory: blocks kept by size class, as on the CPU. All work of the allocator's stream is in order, so a block
// may be handed out again as soon as its last user let go on the host. A recorded graph uses its blocks each time it is
// replayed: what is allocated while it is recorded comes from a pool that the graphs' memory holds back. That pool
// takes what others have let go before it asks for more: the queue's order protects a block's last user there as well.
#include <bit>
#include <map>
#include <mutex>
#include <vector>

#include "backend/cuda/stream.h"
#include "base/error.h"
#include "ops/device.h"
#include "ops/graph.h"

namespace pmetal::cuda {
namespace {

// 1/8 of the power of two below: at most 12.5 % waste; at least 512 bytes
int64_t size_class(int64_t bytes) {
  if (bytes <= 512) return 512;
  const int64_t step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes - 1))) / 8;
  return (bytes + step - 1) / step * step;
}

double gib(size_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

// Free blocks by size. Blocks go back to the pool they came from, or, when that was given up, to the allocator's own.
struct Pool {
  std::map<int64_t, std::vector<void*>> free;
  bool is_given_up = false;
};

class DeviceAllocator final : public Allocator, public std::enable_shared_from_this<DeviceAllocator> {
 public:
  explicit DeviceAllocator(int index) : stream_(index) {}
  ~DeviceAllocator() override { release(); }
  Device device() const override { return {DeviceKind::kCuda, stream_.device()}; }
  Stream& stream() { return stream_; }

  Buffer allocate(int64_t size_bytes) override {
    const int64_t size = size_class(size_bytes);
    std::lock_guard lock(mutex_);
    auto& own = pool_->free[size];
    auto& list = own.empty() ? own_->free[size] : own;
    void* block = nullptr;
    if (!list.empty()) {
      block = list.back();
      list.pop_back();
    } else {
      block = take(size);
      stats_.reserved_bytes += size;
    }
    stats_.current_bytes += size;
    stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.current_bytes);
    std::shared_ptr<void> owner(block, [self = shared_from_this(), pool = pool_, size](void* b) {
      std::lock_guard lock(self->mutex_);
      self->stats_.current_bytes -= size;
      (pool->is_given_up ? self->own_ : pool)->free[size].push_back(b);
    });
    return Buffer(std::move(owner), static_cast<std::byte*>(block), size, device());
  }

  AllocatorStats stats() const override {
    std::lock_guard lock(mutex_);
    return stats_;
  }
  void reset_peak() override {
    std::lock_guard lock(mutex_);
    stats_.peak_bytes = stats_.current_bytes;
  }
  void release_cached() override {
    std::lock_guard lock(mutex_);
    release();
  }

  // Allocations come from `pool` from now on (null: the allocator's own).
  void set_pool(std::shared_ptr<Pool> pool) {
    std::lock_guard lock(mutex_);
    pool_ = pool ? std::move(pool) : own_;
  }
  void give_up(Pool& pool) {
    std::lock_guard lock(mutex_);
    pool.is_given_up = true;
    for (auto& [size, list] : pool.free) {
      auto& to = own_->free[size];
      to.insert(to.end(), list.begin(), list.end());
    }
    pool.free.clear();
  }

 private:
  void* take(int64_t size) {
    check(cudaSetDevice(stream_.device()), "cudaSetDevice");
    void* block = nullptr;
    cudaError_t status = cudaMalloc(&block, static_cast<size_t>(size));
    if (status == cudaErrorMemoryAllocation &&
        !stream_.is_recording()) {  // give back what is only kept, then once more
      cudaGetLastError();
      release();
      status = cudaMalloc(&block, static_cast<size_t>(size));
    }
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      fail(ErrorCode::kOutOfMemory,
           "{} is full: {:.2f} GiB more were asked for; {:.2f} of {:.2f} GiB are free and {:.2f} are in use here (peak "
           "{:.2f}){}{}; use a smaller batch, shorter sequences or gradient checkpointing, or free the GPU of other "
           "processes",
           to_string(device()), gib(static_cast<size_t>(size)), gib(free), gib(total),
           gib(static_cast<size_t>(stats_.current_bytes)), gib(static_cast<size_t>(stats_.peak_bytes)),
           plan_.empty() ? "" : "; planned: ", plan_);
    }
    check(status, "cudaMalloc");
    return block;
  }

  void release() {
    cudaSetDevice(stream_.device());
    cudaStreamSynchronize(stream_.handle());
    for (auto& [size, list] : own_->free) {
      for (void* block : list) cudaFree(block);
      stats_.reserved_bytes -= size * static_cast<int64_t>(list.size());
      list.clear();
    }
  }

  Stream stream_;
  mutable std::mutex mutex_;
  std::shared_ptr<Pool> own_ = std::make_shared<Pool>(), pool_ = own_;
  AllocatorStats stats_;
};

// What the graphs of one owner allocate while they are recorded.
struct GraphMemory {
  std::shared_ptr<DeviceAllocator> allocator;
  std::shared_ptr<Pool> pool = std::make_shared<Pool>();
  explicit GraphMemory(std::shared_ptr<DeviceAllocator> a) : allocator(std::move(a)) {}
  ~GraphMemory() {
    allocator->stream().synchronize_quietly();
    allocator->give_up(*pool);
  }
};

struct RecordedGraph {
  std::shared_ptr<GraphMemory> memory;
  cudaGraphExec_t executable = nullptr;
  explicit RecordedGraph(std::shared_ptr<GraphMemory> m) : memory(std::move(m)) {}
  ~RecordedGraph() {
    memory->allocator->stream().synchronize_quietly();
    if (executable) cudaGraphExecDestroy(executable);
  }
};

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {

CudaState cuda_state() {
  CudaState state;
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    state.reason = "no NVIDIA driver is installed";
    return state;
  }
  const cudaError_t status = cudaGetDeviceCount(&state.n_devices);
  if (status != cudaSuccess) {
    cudaGetLastError();
    state.n_devices = 0;
    state.reason = fmt::format("the NVIDIA driver (CUDA {}.{}) answers: {}", driver / 1000, driver % 1000 / 10,
                               cudaGetErrorString(status));
  }
  for (int i = 0; i < state.n_devices; ++i) {
    int major = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i);
    if (major == 9) continue;
    state.reason =
        fmt::format("GPU {} has compute capability {}.x; the kernels of this build are for 9.0 (Hopper)", i, major);
    state.n_devices = i;  // devices behind it are not offered
  }
  return state;
}

CudaQueue open_cuda(int index) {
  const CudaState state = cuda_state();
  if (state.n_devices == 0) fail(ErrorCode::kUnsupported, "no CUDA device: {}; use --device cpu", state.reason);
  if (index >= state.n_devices)
    fail(ErrorCode::kUsage, "device cuda:{} does not exist: this machine has {} usable GPU(s), counted from 0", index,
         state.n_devices);
  auto allocator = std::make_shared<cuda::DeviceAllocator>(index);
  return {allocator, &allocator->stream()};
}

void copy_from_cuda(const Buffer& from, void* to) {
  cuda::check(cudaSetDevice(from.device().index), "cudaSetDevice");
  cuda::check(cudaDeviceSynchronize(), "waiting for the device");
  cuda::check(cudaMemcpy(to, from.data(), static_cast<size_t>(from.size_bytes()), cudaMemcpyDeviceToHost),
              "copy to the host");
}

std::shared_ptr<void> begin_download_cuda(void* stream, const void* from, int64_t bytes) {
  auto* queue = static_cast<cuda::Stream*>(stream);
  cuda::check(cudaSetDevice(queue->device()), "cudaSetDevice");
  return {queue->begin_download(from, bytes), [queue](void* a) {
            if (a) queue->give_back(static_cast<cuda::Arrival*>(a));
          }};
}

void end_download_cuda(const std::shared_ptr<void>& arrival, void* to, int64_t bytes) {
  cuda::end_download(*static_cast<cuda::Arrival*>(arrival.get()), to, bytes);
}

std::shared_ptr<void> make_graph_memory_cuda(Allocator& allocator) {
  auto& device = static_cast<cuda::DeviceAllocator&>(allocator);
  return std::make_shared<cuda::GraphMemory>(device.shared_from_this());
}

void use_graph_memory_cuda(const std::shared_ptr<void>& memory, bool on) {
  const auto& graph = *std::static_pointer_cast<cuda::GraphMemory>(memory);
  graph.allocator->set_pool(on ? graph.pool : nullptr);
}

std::shared_ptr<void> record_cuda(const std::shared_ptr<void>& memory, const std::function<void()>& work) {
  auto graph = std::make_shared<cuda::RecordedGraph>(std::static_pointer_cast<cuda::GraphMemory>(memory));
  cuda::DeviceAllocator& allocator = *graph->memory->allocator;
  cuda::Stream& stream = allocator.stream();
  allocator.set_pool(graph->memory->pool);
  cudaGraph_t recorded = nullptr;
  try {
    stream.begin_recording();
    work();
    recorded = stream.end_recording();
  } catch (...) {
    stream.abandon_recording();
    allocator.set_pool(nullptr);
    throw;
  }
  allocator.set_pool(nullptr);
  const cudaError_t status = cudaGraphInstantiate(&graph->executable, recorded, 0);
  cudaGraphDestroy(recorded);
  cuda::check(status, "making a graph executable");
  return graph;
}

void replay_cuda(const std::shared_ptr<void>& graph) {
  const auto& recorded = *std::static_pointer_cast<cuda::RecordedGraph>(graph);
  cuda::Stream& stream = recorded.memory->allocator->stream();
  cuda::check(cudaSetDevice(stream.device()), "cudaSetDevice");
  cuda::check(cudaGraphLaunch(recorded.executable, stream.handle()), "replaying a graph");
}

void synchronize_cuda(void* stream) { static_cast<cuda::Stream*>(stream)->synchronize(); }

}  // namespace pmetal::ops
