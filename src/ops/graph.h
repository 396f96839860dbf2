// Graphs: the device work of a callable, recorded once and started again with one call. A decode step is hundreds of
// small kernels; started one by one they cost more than they take. What the work reads must lie at fixed addresses
// whose contents the caller renews between replays; the callable may neither wait, nor copy from or to the host, nor
// let a host value that changes from step to step reach a kernel. CUDA has graphs; on the CPU a kernel starts by a
// call, there is nothing to record and can_record() is false.
#pragma once

#include <functional>
#include <memory>

#include "tensor/context.h"

namespace pmetal::ops {

bool can_record(const Context& ctx);

// Device memory of the tensors that recorded work makes. Graphs that share it must be replayed one after the other on
// one stream, and what one left may be overwritten by the next.
class GraphMemory {
 public:
  explicit GraphMemory(Context& ctx);  // Error(kUnsupported) where can_record() is false

 private:
  friend class Graph;
  friend class GraphMemoryScope;
  std::shared_ptr<void> handle_;
};

// Work that is started in a scope takes its tensors from that memory as well: what it leaves is overwritten by the next
// replay, and both need the memory of one.
class GraphMemoryScope {
 public:
  explicit GraphMemoryScope(const GraphMemory& memory);
  ~GraphMemoryScope();
  GraphMemoryScope(const GraphMemoryScope&) = delete;
  GraphMemoryScope& operator=(const GraphMemoryScope&) = delete;

 private:
  std::shared_ptr<void> handle_;
};

class Graph {
 public:
  // Calls `work` once; what it queues is recorded and does not run. Every kernel it uses has run before on this device
  // (plans are made and code is loaded then). Error(kUnsupported) naming what cannot be recorded.
  Graph(const GraphMemory& memory, const std::function<void()>& work);
  void replay() const;  // queues all of it on the context's stream

 private:
  std::shared_ptr<void> handle_;
};

// the backend's answers
std::shared_ptr<void> make_graph_memory_cuda(Allocator& allocator);
void use_graph_memory_cuda(const std::shared_ptr<void>& memory, bool on);
std::shared_ptr<void> record_cuda(const std::shared_ptr<void>& memory, const std::function<void()>& work);
void replay_cuda(const std::shared_ptr<void>& graph);

}  // namespace pmetal::ops
