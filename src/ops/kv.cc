#include "ops/kv.h"

#include "ops/common.h"

namespace pmetal::ops {

void kv_append(Context& ctx, const Tensor& k, const Tensor& v, const Tensor& k_pages, const Tensor& v_pages,
               const Tensor& slots) {
  require(k.rank() == 3 && v.rank() == 3 && k_pages.rank() == 4 && v_pages.rank() == 4 && k.dim(1) == k_pages.dim(1) &&
              v.dim(1) == v_pages.dim(1) && k.dim(2) == k_pages.dim(3) && v.dim(2) == v_pages.dim(3),
          "[kv_append] rows {} and {} do not fit pages {} and {}", k.shape().to_string(), v.shape().to_string(),
          k_pages.shape().to_string(), v_pages.shape().to_string());
  require(slots.dtype() == DType::kI64 && slots.numel() == k.dim(0), "[kv_append] {} slots {} for {} rows",
          slots.numel(), name_of(slots.dtype()), k.dim(0));
  dispatch(ctx, kv_append_cpu, kv_append_cuda,
           KvAppendArgs{k.view(), v.view(), k_pages.view(), v_pages.view(), slots.view()});
}

}  // namespace pmetal::ops
