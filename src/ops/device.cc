#include "ops/device.h"

namespace pmetal::ops {

Context make_context(Device device, std::shared_ptr<ThreadPool> threads) {
  if (device.is_meta()) return Context(std::move(threads), make_meta_allocator());
  if (device.is_cpu()) return Context(std::move(threads));
  const CudaQueue queue = open_cuda(device.index);
  Context ctx(std::move(threads), queue.allocator);
  ctx.set_stream(queue.stream);
  return ctx;
}

void synchronize(const Context& ctx) {
  if (ctx.device().is_cuda()) synchronize_cuda(ctx.stream());
}

}  // namespace pmetal::ops
