// kv_append: rows of keys and values go to their slots in the pages [pages, kv_heads, 64, d]; a block per row.
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

template <int kN>
__device__ void put(const View& rows, const View& pages, int64_t token, int64_t slot) {
  const int64_t d = rows.shape[2], size = pages.shape[2], per_head = d / kN;
  for (int64_t i = threadIdx.x; i < rows.shape[1] * per_head; i += kThreads) {
    const int64_t h = i / per_head, c = i % per_head * kN;
    float v[kN];
    load_any<kN>(rows.data, rows.dtype, token * rows.strides[0] + h * rows.strides[1] + c * rows.strides[2], v);
    const int64_t to = slot / size * pages.strides[0] + h * pages.strides[1] + slot % size * pages.strides[2];
    store_any<kN>(pages.data, pages.dtype, to + c * pages.strides[3], v);
  }
}

template <int kN>
__global__ void kv_append_kernel(View k, View v, View k_pages, View v_pages, View slots) {
  const int64_t slot = slots.as<int64_t>()[blockIdx.x * slots.strides[0]];
  if (slot < 0) return;
  put<kN>(k, k_pages, blockIdx.x, slot);
  put<kN>(v, v_pages, blockIdx.x, slot);
}

}  // namespace

void launch_kv_append(StreamHandle stream, const View& k, const View& v, const View& k_pages, const View& v_pages,
                      const View& slots, int pack) {
  const unsigned rows = static_cast<unsigned>(k.shape[0]);
  if (pack == 4)
    kv_append_kernel<4><<<rows, kThreads, 0, stream>>>(k, v, k_pages, v_pages, slots);
  else
    kv_append_kernel<1><<<rows, kThreads, 0, stream>>>(k, v, k_pages, v_pages, slots);
}

}  // namespace pmetal::cuda
