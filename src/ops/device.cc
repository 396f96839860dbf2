#include "ops/device.h"

#include <cstring>

#include "ops/elementwise.h"

namespace pmetal::ops {

Context make_context(Device device, std::shared_ptr<ThreadPool> threads) {
  if (device.is_meta()) return Context(std::move(threads), make_meta_allocator());
  if (device.is_cpu()) return Context(std::move(threads));
  const CudaQueue queue = open_cuda(device.index);
  Context ctx(std::move(threads), queue.allocator);
  ctx.set_stream(queue.stream);
  ctx.set_range_marks(range_marks_cuda());
  return ctx;
}

void synchronize(const Context& ctx) {
  if (ctx.device().is_cuda()) synchronize_cuda(ctx.stream());
}

Download::Download(Context& ctx, const Tensor& x) : shape_(x.shape()), dtype_(x.dtype()) {
  PMETAL_ASSERT(x.is_contiguous(), "a strided tensor {} is not downloaded", x.shape().to_string());
  if (ctx.device().is_cuda() && x.device().is_cuda())
    arrival_ = begin_download_cuda(ctx.stream(), x.bytes(), x.size_bytes());
  else
    host_ = to_host(ctx, x);
}

const Tensor& Download::get() {
  if (arrival_) {
    host_ = Tensor(allocate_host(shape_.numel() * size_of(dtype_)), shape_, dtype_);
    end_download_cuda(arrival_, host_.bytes(), host_.size_bytes());
    arrival_.reset();
  }
  return host_;
}

namespace {

Buffer host_bytes(const Buffer& from) {
  if (!from.device().is_cuda()) return from;
  Buffer to = allocate_host(from.size_bytes());
  copy_from_cuda(from, to.data());
  return to;
}

}  // namespace

Tensor host_copy(const Tensor& x) {
  if (!x.device().is_cuda()) return x;
  PMETAL_ASSERT(x.is_contiguous(), "host copy of a strided tensor {}", x.shape().to_string());
  return Tensor(host_bytes(x.buffer().slice(0, x.size_bytes())), x.shape(), x.dtype());
}

quant::Weight host_copy(const quant::Weight& weight) {
  quant::Weight copy = weight;
  for (quant::Plane& plane : copy.planes) plane.bytes = host_bytes(plane.bytes);
  if (weight.row_step) {
    const int64_t row = weight.in * size_of(copy.planes[0].dtype),
                  step = weight.row_step * size_of(copy.planes[0].dtype);
    const Buffer rows = allocate_host(weight.out * row), all = copy.planes[0].bytes;
    for (int64_t r = 0; r < weight.out; ++r)
      std::memcpy(rows.data() + r * row, all.data() + r * step, static_cast<size_t>(row));
    copy.planes[0].bytes = rows;
    copy.row_step = 0;
  }
  return copy;
}

quant::Weight to_device(Context& ctx, const quant::Weight& weight) {
  quant::Weight copy = weight;
  if (ctx.device().is_cuda())
    for (quant::Plane& plane : copy.planes)
      plane.bytes = to_device(ctx, Tensor(plane.bytes, {plane.bytes.size_bytes()}, DType::kU8)).buffer();
  return copy;
}

}  // namespace pmetal::ops
