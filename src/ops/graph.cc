#include "ops/graph.h"

#include "base/error.h"

namespace pmetal::ops {

bool can_record(const Context& ctx) { return ctx.device().is_cuda(); }

GraphMemory::GraphMemory(Context& ctx) {
  if (!can_record(ctx)) fail(ErrorCode::kUnsupported, "work on {} cannot be recorded", to_string(ctx.device()));
  handle_ = make_graph_memory_cuda(ctx.allocator());
}

GraphMemoryScope::GraphMemoryScope(const GraphMemory& memory) : handle_(memory.handle_) {
  use_graph_memory_cuda(handle_, true);
}
GraphMemoryScope::~GraphMemoryScope() { use_graph_memory_cuda(handle_, false); }

Graph::Graph(const GraphMemory& memory, const std::function<void()>& work)
    : handle_(record_cuda(memory.handle_, work)) {}

void Graph::replay() const { replay_cuda(handle_); }

}  // namespace pmetal::ops
