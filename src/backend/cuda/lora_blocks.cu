// lora_blocks: small rectangles of several matrices moved in one launch. A row of blocks for each.
#include "backend/cuda/device.cuh"

namespace pmetal::cuda {
namespace {

constexpr int kThreads = 256;

template <class Unit, class Put>
__device__ void each(const Rectangle& r, const Put& put) {
  const uint32_t columns = static_cast<uint32_t>(r.columns), items = static_cast<uint32_t>(r.rows * r.columns);
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < items; i += gridDim.x * kThreads) {
    const uint32_t row = i / columns, column = i - row * columns;
    put(static_cast<const Unit*>(r.from)[row * r.from_step + column],
        static_cast<Unit*>(r.to)[row * r.to_step + column]);
  }
}

template <class Unit>
__global__ void copy_kernel(const __grid_constant__ RectanglesLaunch a) {
  each<Unit>(a.part[blockIdx.y], [](const Unit& from, Unit& to) { to = from; });
}
__global__ void add_kernel(const __grid_constant__ RectanglesLaunch a) {
  each<float>(a.part[blockIdx.y], [](const float& from, float& to) { to += from; });
}
__global__ void add_packs_kernel(const __grid_constant__ RectanglesLaunch a) {
  each<float4>(a.part[blockIdx.y], [](const float4& from, float4& to) {
    const float4 t = to;
    to = make_float4(t.x + from.x, t.y + from.y, t.z + from.z, t.w + from.w);
  });
}

}  // namespace

void launch_rectangles(StreamHandle stream, const RectanglesLaunch& a) {
  const dim3 grid(blocks_for(a.most, kThreads, 132), static_cast<unsigned>(a.n));
  if (a.adds)
    a.bytes == 16 ? add_packs_kernel<<<grid, kThreads, 0, stream>>>(a) : add_kernel<<<grid, kThreads, 0, stream>>>(a);
  else if (a.bytes == 16)
    copy_kernel<uint4><<<grid, kThreads, 0, stream>>>(a);
  else if (a.bytes == 4)
    copy_kernel<uint32_t><<<grid, kThreads, 0, stream>>>(a);
  else
    copy_kernel<uint16_t><<<grid, kThreads, 0, stream>>>(a);
}

}  // namespace pmetal::cuda
