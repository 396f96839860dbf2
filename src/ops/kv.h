// Writing keys and values of a step into the paged store: pages [pages, kv_heads, 64, d]. slot[i] is the absolute token
// slot (page · 64 + offset) of row i; negative: the row is not written.
#pragma once

#include "tensor/kernel.h"

namespace pmetal::ops {

struct KvAppendArgs {
  View k, v;              // [tokens, kv_heads, d]
  View k_pages, v_pages;  // [pages, kv_heads, 64, d]
  View slots;             // [tokens] i64
};
PMETAL_DECLARE_KERNELS(kv_append, KvAppendArgs)
void kv_append(Context& ctx, const Tensor& k, const Tensor& v, const Tensor& k_pages, const Tensor& v_pages,
               const Tensor& slots);

}  // namespace pmetal::ops
